import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from itertools import islice
from itertools import pairwise

import pytest

from tuner.serving import isolation
from tuner.serving.isolation import fresh_tags
from tuner.serving.isolation import isolate

Reply = Callable[[str, int], tuple[int, str]]
Serve = Callable[[Reply], str]


Listen = Callable[[type[BaseHTTPRequestHandler]], str]


@pytest.fixture
def serve(listen: Listen) -> Serve:
    """Starts a server whose replies a function of method and path, and the request's number decides; returns its root."""

    def begin(reply: Reply) -> str:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                asked.append(f"{self.command} {self.path}")
                status, body = reply(asked[-1], len(asked) - 1)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_POST = answer  # noqa: N815

        return listen(Handler)

    return begin


RESET = "POST /reset_prefix_cache?reset_external=true"
SLOTS = '[{"id": 0}, {"id": 1}]'


@pytest.mark.parametrize(
    ("engine", "replies", "by"),
    [
        ("vllm", {RESET: (200, '{"success": true}')}, RESET),
        ("vllm", {RESET: (200, "")}, RESET),  # older ones
        ("sglang", {"POST /flush_cache": (200, "Cache flushed.")}, "POST /flush_cache"),
        (
            "llamacpp",
            {
                "GET /slots": (200, SLOTS),
                "POST /slots/0?action=erase": (200, "{}"),
                "POST /slots/1?action=erase": (200, "{}"),
            },
            "POST /slots/…?action=erase, 2 of 2 slots",
        ),
    ],
)
def test_cache_is_emptied_as_the_engine_wants_it(
    engine: str, replies: dict[str, tuple[int, str]], by: str, serve: Serve
) -> None:
    root = serve(lambda asked, number: replies.get(asked, (404, "")))

    found = isolate(root, engine, "tag")

    assert (found.how, found.salt, found.salting, found.by) == ("cleared", None, None, by)
    assert found.label == "cleared"


@pytest.mark.parametrize(
    ("engine", "replies", "label", "by"),
    [
        ("vllm", {}, "salted: cache_salt", "VLLM_SERVER_DEV_MODE=1"),
        ("vllm", {RESET: (401, "")}, "salted: cache_salt", f"{RESET}: 401"),
        ("sglang", {}, "salted: prompt", "POST /flush_cache: 404"),
        (
            "llamacpp",
            {},
            "salted: prompt",
            r"GET /slots: 404 \(llama.cpp erases slots with --slots",
        ),
        ("llamacpp", {"GET /slots": (200, "[]")}, "salted: prompt", "GET /slots"),
        ("llamacpp", {"GET /slots": (200, '{"a": 1}')}, "salted: prompt", "GET /slots"),
        (
            "llamacpp",
            {"GET /slots": (200, SLOTS), "POST /slots/0?action=erase": (200, "{}")},
            "salted: prompt",
            r"POST /slots/1\?action=erase: 404",
        ),
        ("organization-owner", {}, "salted: prompt", "no known kind"),
        (None, {}, "salted: prompt", "no known kind"),
    ],
)
def test_where_it_cannot_be_prompts_are_salted_and_why_is_told(
    engine: str | None, replies: dict[str, tuple[int, str]], label: str, by: str, serve: Serve
) -> None:
    root = serve(lambda asked, number: replies.get(asked, (404, "")))

    found = isolate(root, engine, "tag")

    assert found.label == label
    assert found.salt == "tag"
    assert re.search(by.replace("?reset", r"\?reset"), found.by)


@pytest.mark.parametrize(
    ("engine", "busy"), [("vllm", (200, '{"success": false}')), ("sglang", (400, "not idle"))]
)
def test_busy_server_is_asked_again_for_a_while(
    engine: str, busy: tuple[int, str], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "PAUSE_S", 0.01)
    root = serve(lambda asked, number: busy if number < 3 else (200, "{}"))
    assert isolate(root, engine, "tag").label == "cleared"

    monkeypatch.setattr(isolation, "BUSY_S", 0.05)
    root = serve(lambda asked, number: busy)
    assert isolate(root, engine, "tag").how == "salted"


@pytest.mark.parametrize("root", ["http://127.0.0.1:1", "http://[::1"])
def test_server_that_is_gone_raises_nothing(root: str) -> None:
    found = isolate(root, "vllm", "tag")

    assert found.label == "salted: cache_salt"
    assert "Error" in found.by or "Invalid" in found.by


def test_tags_in_a_row_differ_from_the_first_letter_on_and_none_comes_twice() -> None:
    tags = list(islice(fresh_tags(), 200))

    assert all(one[0] != other[0] for one, other in pairwise(tags))
    assert len({*tags, *islice(fresh_tags(), 200)}) == 400
    assert all(tag.isalnum() and len(tag) == 9 for tag in tags)
