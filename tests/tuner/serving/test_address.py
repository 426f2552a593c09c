import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler

import pytest

from tuner import serving
from tuner.errors import ServingError
from tuner.serving import address

Server = Callable[[int, str], str]


Listen = Callable[[type[BaseHTTPRequestHandler]], str]


@pytest.fixture
def server(listen: Listen) -> Server:
    """Starts a server that gives one reply to everything, as often as it is called; returns its api_base."""

    def begin(status: int, body: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path == "/v1/models"
                self.send_response(status if found else 500)
                self.end_headers()
                self.wfile.write(body.encode())

        return listen(Handler) + "/v1"

    return begin


def listing(*names: str) -> str:
    return json.dumps({"object": "list", "data": [{"id": name} for name in names]})


def start(model: str, api_base: str | None, **fields: object) -> serving.Endpoint:
    return serving.start(
        "m", serving.Addressed.model_validate({"model": model, "api_base": api_base, **fields})
    )


@pytest.mark.parametrize(
    ("model", "listed"),
    [
        ("hosted_vllm/meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("openai/gpt-oss-20b", "gpt-oss-20b"),
        ("hosted_vllm/openai/gpt-oss-20b", "openai/gpt-oss-20b"),
        ("gpt-oss-20b", "gpt-oss-20b"),
    ],
)
def test_listed_model_is_accepted_with_and_without_provider(
    model: str, listed: str, server: Server
) -> None:
    with start(model, server(200, listing("other", listed))) as endpoint:
        endpoint.check()

        assert endpoint.settings.model == model
        assert endpoint.pid is None
        assert endpoint.serve is None
        assert endpoint.isolate("a").label == "salted: prompt"


def test_model_that_is_not_listed_gives_the_names_that_are(server: Server) -> None:
    api_base = server(200, listing("qwen", "llama"))

    with pytest.raises(
        ServingError, match=r"models\.m: .*does not serve .*: llama, qwen"
    ) as caught:
        start("hosted_vllm/mistral", api_base)

    assert "hosted_vllm/NAME" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, "no such page"),
        (401, listing("other")),
        (200, "<html>"),
        (200, "[]"),
        (200, listing()),
    ],
)
def test_any_answer_without_a_list_counts_as_reachable(
    status: int, body: str, server: Server
) -> None:
    with start("hosted_vllm/mistral", server(status, body) + "/") as endpoint:
        endpoint.check()


@pytest.mark.parametrize("api_base", ["http://127.0.0.1:1/v1", "gpu1:8000/v1", "http://[::1/v1"])
def test_unreachable_address_is_named(api_base: str) -> None:
    with pytest.raises(ServingError, match=r"models\.m: nothing answers at ") as caught:
        start("hosted_vllm/mistral", api_base)

    assert api_base in str(caught.value)


def test_hosted_provider_is_not_asked() -> None:
    with start("anthropic/claude", None) as endpoint:
        endpoint.check()


def test_key_is_sent_but_is_not_part_of_the_fingerprint(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPU1_KEY", "secret")
    api_base = server(200, listing("llama"))

    with start("hosted_vllm/llama", api_base, api_key_env="GPU1_KEY", timeout_s=5) as endpoint:
        assert endpoint.fingerprint() == {
            "model": "hosted_vllm/llama",
            "api_base": api_base,
            "endpoint": "chat",
            "grammar": "none",
            "json_schema": False,
        }


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("hang", "nothing answers at .*: TimeoutError"),
        ("drip", "nothing answers at .*: TimeoutError"),
        ("bytes", "nothing answers at .*: TimeoutError"),
        ("late-cut", None),
        ("garbage", None),
        ("flood", None),
        ("line", None),
        ("latin", None),
        ("nul", None),
        ("500", None),
        ("429:60", None),
        ("echo", None),
    ],
)
def test_a_server_that_misbehaves_is_left_in_time(
    serve: Callable[..., AbstractContextManager[str]],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    told: str | None,
) -> None:
    monkeypatch.setattr(address, "PROBE_TIMEOUT_S", 0.5)
    monkeypatch.setenv("SOME_KEY", "sk-very-secret-0002")
    with serve("--probe", fault) as api_base:
        began = time.perf_counter()
        if told is None:  # it answers HTTP, and does not say what it serves
            start("openai/loopback", api_base, api_key_env="SOME_KEY").close()
        else:
            with pytest.raises(ServingError, match=told) as caught:
                start("openai/loopback", api_base, api_key_env="SOME_KEY")
            assert "secret" not in str(caught.value)
        assert time.perf_counter() - began < 2.0


def test_many_names_are_not_all_told(server: Server) -> None:
    with pytest.raises(ServingError, match="and 9980 more") as caught:
        start("openai/m", server(200, listing(*(f"name-{n}" for n in range(10_000)))))
    assert len(str(caught.value)) < 1000
