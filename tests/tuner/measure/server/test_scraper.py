import re
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from tuner import serving
from tuner.measure import page as pages
from tuner.measure.server import Scraper
from tuner.measure.server.scraper import is_loopback

FIXTURES = Path(__file__).parent / "fixtures"
Reply = Callable[[str, int], tuple[int, str]]
Serve = Callable[[Reply], str]


Listen = Callable[[type[BaseHTTPRequestHandler]], str]


@pytest.fixture
def serve(listen: Listen) -> Serve:
    """Starts a server whose replies a function of the path and the request's number decides; returns its root."""

    def begin(reply: Reply) -> str:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                status, body = reply(self.path, len(asked) - 1)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

        return listen(Handler)

    return begin


def page(name: str) -> str:
    return (FIXTURES / f"{name}.txt").read_text()


def test_window_of_vllm_from_idle_to_idle(serve: Serve) -> None:
    names = ["vllm_idle", "vllm_in_flight", "vllm_in_flight"]

    def reply(path: str, number: int) -> tuple[int, str]:
        return 200, page(names[number] if number < len(names) else "vllm_after")

    with Scraper(serve(reply), period_s=0.1, bytes_per_token=23_040) as scraper:
        time.sleep(0.45)
    reading = scraper.reading()

    assert reading.engine == "vllm"
    assert reading.kv_source == "metrics"
    assert reading.kv_bytes_max == pytest.approx(20 / 363 * 46592 * 23_040)
    assert 0 < reading.kv_bytes_mean < reading.kv_bytes_max
    assert reading.kv_capacity_bytes == 46592 * 23_040
    assert reading.prefix_hit_share == pytest.approx(7296 / 12690)
    assert reading.queue_time_mean_s == pytest.approx(20.2068 / 20, rel=1e-4)
    assert reading.running_max == 8
    assert 3 <= reading.scrapes <= 6
    assert reading.seconds == pytest.approx(0.45, abs=0.2)


def test_tensorrt_llms_metrics_are_found_beside_its_json(serve: Serve) -> None:
    asked = []

    def reply(path: str, number: int) -> tuple[int, str]:
        asked.append(path)
        if path == "/prometheus/metrics":
            return 200, page("tensorrt_llm_in_flight")
        return 200, '[{"iter": 1}]'

    with Scraper(serve(reply), period_s=0.05) as scraper:
        time.sleep(0.12)

    assert scraper.reading().engine == "tensorrt-llm"
    assert asked.count("/metrics") == 1  # it empties a buffer that others may want


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (404, "", r"/metrics: 404 Not Found \(llama\.cpp has metrics with --metrics, SGLang .*"),
        (501, "", r"/metrics: 501 Not Implemented \(.*"),
        (200, "<html>", r"/metrics: not Prometheus' text format: .*"),
        (200, "up 1", r"/metrics: no metric of a known engine; .*"),
    ],
)
def test_server_without_metrics_is_asked_once_and_the_reading_says_why(
    status: int, body: str, problem: str, serve: Serve
) -> None:
    asked = []

    def reply(path: str, number: int) -> tuple[int, str]:
        asked.append(path)
        return (status, body) if path == "/metrics" else (404, "")

    with Scraper(serve(reply), period_s=0.02) as scraper:
        time.sleep(0.1)
    reading = scraper.reading()

    assert re.fullmatch(problem, str(reading.problem))
    assert reading.scrapes == 0
    assert reading.kv_tokens_mean is reading.prefix_hit_share is None
    assert asked == ["/metrics", "/prometheus/metrics"]


def test_server_that_was_not_up_yet_is_asked_again(serve: Serve) -> None:
    def reply(path: str, number: int) -> tuple[int, str]:
        return (503, "loading") if number == 0 else (200, page("vllm_after"))

    with Scraper(serve(reply), period_s=0.05) as scraper:
        time.sleep(0.15)

    assert scraper.reading().problem is None
    assert scraper.reading().engine == "vllm"


def test_restart_within_the_window_is_a_problem(serve: Serve) -> None:
    def reply(path: str, number: int) -> tuple[int, str]:
        return 200, page("vllm_after" if number == 0 else "vllm_idle")

    with Scraper(serve(reply), period_s=60) as scraper:
        pass

    assert "restarted within the window" in str(scraper.reading().problem)
    assert scraper.reading().prefix_hit_share is None


@pytest.mark.parametrize("root", ["http://127.0.0.1:1", "http://[::1", "gpu1:8000", "http://"])
def test_nobody_there_raises_nothing(root: str) -> None:
    with Scraper(root, period_s=0.01) as scraper:
        time.sleep(0.03)

    assert str(scraper.reading().problem).startswith("/metrics: ")


def test_server_that_does_not_answer_holds_nobody_up_for_long(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "TIMEOUT_S", 0.1)

    def reply(path: str, number: int) -> tuple[int, str]:
        time.sleep(1.5)
        return 200, page("vllm_idle")

    began_s = time.perf_counter()
    with Scraper(serve(reply), period_s=0.05) as slow:
        pass

    assert time.perf_counter() - began_s < 1.4
    assert "Timeout" in str(slow.reading().problem)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost", True),
        ("http://[::1]:8000", True),
        ("http://gpu1:8000", False),
        ("https://10.0.0.1", False),
        ("http://[::1", False),
    ],
)
def test_loopback_is_told_apart(url: str, here: bool) -> None:
    assert is_loopback(url) is here


def test_running_llama_cpp_is_seen_at_work(smollm2: serving.Endpoint) -> None:
    prompt = "The miller and his cat lived beside a wide river, and every morning they " * 3
    smollm2.isolate("a")

    with Scraper(str(smollm2.root), period_s=0.05) as scraper:
        for _ in range(2):
            asked = {"prompt": prompt, "max_tokens": 12, "temperature": 0}
            httpx.post(f"{smollm2.root}/v1/completions", json=asked, trust_env=False, timeout=60)
    reading = scraper.reading()

    assert reading.engine == "llama.cpp"
    assert reading.running_max == 1
    assert 0 < reading.running_mean <= 1
    assert 0.4 < reading.prefix_hit_share < 0.5
    assert reading.kv_source is reading.kv_tokens_mean is None
