"""optuna-dashboard as a browser sees it, and who is let in."""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tuner.study import run_study


@contextmanager
def served(*arguments: object, **environment: str) -> Iterator[str]:
    """The address that a dashboard prints, until the block ends."""
    command = [sys.executable, "-c", "from tuner.cli import main; main()", "dashboard"]
    with subprocess.Popen(
        [*command, *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
    ) as process:  # fmt: skip
        try:
            line = process.stdout.readline().strip()  # type: ignore[union-attr]
            assert line.startswith("http://"), process.communicate()[1]
            yield line
        finally:
            process.kill()


@pytest.fixture
def browser(chromium):
    """Chromium, with a page that keeps what its console says."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(**chromium)
        yield browser
        browser.close()


@pytest.fixture
def study(make_study):
    """One that was run, so that Optuna's own side of it is as a run leaves it."""
    made = make_study(trials=2)
    run_study(made)
    return made


@pytest.fixture
def kept_path(keep, found, tmp_path):
    """One whose results were given, which takes no time."""
    keep(found("direct", {"few_shot": 2}, search=[(0, 1, 4)] * 4))
    return tmp_path / "study.yaml"


def status_of(url: str, *, user: str | None = None, password: str = "") -> tuple[int, str]:
    request = urllib.request.Request(url)
    if user is not None:
        token = b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers.get("WWW-Authenticate", "")


def test_the_page_shows_metric_names_notes_and_our_plots(study, browser):
    with served(study.path) as url:
        page = browser.new_page(viewport={"width": 1400, "height": 2000})
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)  # fmt: skip
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{url}studies/1")
        page.get_by_text("accuracy [share]").first.wait_for()
        page.get_by_text("tokens_total [tokens/query]").first.wait_for()
        page.locator(".gtitle", has_text="accuracy over tokens_total").wait_for()
        page.locator(".ytitle", has_text=re.compile("^accuracy$")).first.wait_for()
        page.locator(".xtitle", has_text="tokens_total (tokens/query)").wait_for()
        assert page.locator("path.yerror").count() > 0
        page.goto(f"{url}studies/1/trials?numbers=0")
        page.get_by_text("Written by tuner, anew at every start").first.wait_for()
        page.get_by_text("search, 10 questions").first.wait_for()
        page.goto(f"{url}studies/1/note")
        page.get_by_text("max-accuracy").first.wait_for()
        assert said == []


@pytest.mark.slow
def test_without_the_password_nobody_is_let_in(kept_path):
    with served(kept_path, "--password-env", "SECRET", SECRET="wörd: 1") as url:
        for path in ("", "../api/studies"):
            status, asked = status_of(url + path)
            assert (status, asked) == (401, 'Basic realm="tuner", charset="UTF-8"')
            assert status_of(url + path, user="tuner", password="word: 1")[0] == 401
            assert status_of(url + path, user="other", password="wörd: 1")[0] == 401
            assert status_of(url + path, user="tuner", password="wörd: 1")[0] == 200


def test_a_browser_with_the_wrong_password_gets_401(kept_path, browser):
    with served(kept_path, "--password-env", "SECRET", SECRET="right") as url:
        for password, status in (("wrong", 401), ("right", 200)):
            known = {"username": "tuner", "password": password}
            context = browser.new_context(http_credentials=known)
            assert context.new_page().goto(url).status == status
            context.close()


def test_other_machines_are_let_in_with_a_password_only(tuner, kept_path, monkeypatch):
    ended = tuner("dashboard", kept_path, "--host", "0.0.0.0")
    assert ended.code == 2
    assert ended.err.startswith("error: --host 0.0.0.0: whoever reaches the dashboard can delete studies")  # fmt: skip
    assert "--password-env" in ended.err
    monkeypatch.delenv("NO_SUCH", raising=False)
    ended = tuner("dashboard", kept_path, "--host", "0.0.0.0", "--password-env", "NO_SUCH")
    assert "NO_SUCH is not set\nhint: " in ended.err
    monkeypatch.setenv("NO_SUCH", "")
    assert "NO_SUCH is empty\nhint: " in tuner("dashboard", kept_path, "--password-env", "NO_SUCH").err  # fmt: skip


@pytest.mark.slow
def test_several_are_answered_at_once(kept_path):
    """A page asks for much at once; one that reads nothing must not keep the others waiting."""
    import socket

    with served(kept_path) as url:
        host, port = re.fullmatch(r"http://([\d.]+):(\d+)/.*", url).groups()  # type: ignore[union-attr]
        with socket.create_connection((host, int(port))) as silent:
            silent.sendall(b"GET /api/studies HTTP/1.1\r\n")
            assert status_of(f"http://{host}:{port}/api/studies")[0] == 200


@pytest.mark.slow
def test_the_run_goes_on_after_the_dashboard_has_written(tuner, study):
    with served(study.path):
        pass
    before = tuner("front", study.path, "--json").out
    ended = tuner("run", study.path)
    assert ended.code == 0, ended.err
    assert tuner("front", study.path, "--json").out == before
