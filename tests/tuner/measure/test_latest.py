"""Meters of other hosts: DCGM exporters and TensorRT-LLM servers, against real HTTP servers on loopback."""

import gc
import threading
import time
from collections.abc import Callable

import pytest

from tuner.errors import UserError
from tuner.measure import Meter
from tuner.measure import MeterSpec
from tuner.measure import between
from tuner.measure import make_meter
from tuner.measure.dcgm import INTERVAL_S
from tuner.measure.total import total

HIDDEN = "enable_energy_metrics: true"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.measure.dcgm.SHORTEST_PERIOD_S", 0.02)
    monkeypatch.setattr("tuner.measure.tensorrt_llm.PERIOD_S", 0.02)


def dcgm_meter(url: str, **options) -> Meter:
    content = {"dcgm": {"url": f"{url}/metrics", "interval_s": 0.05, **options}}
    return make_meter(MeterSpec.model_validate(content), pid=None)


def trtllm_meter(url: str) -> Meter:
    content = {"tensorrt_llm": {"url": f"{url}/energy_metrics"}}
    return make_meter(MeterSpec.model_validate(content), pid=None)


def wait_for(condition: Callable[[], bool], *, limit_s: float = 5.0) -> None:
    end_s = time.perf_counter() + limit_s
    while not condition():
        assert time.perf_counter() < end_s, "never came true"
        time.sleep(0.01)


@pytest.mark.parametrize("pods", [("",), ("one", "two")])
def test_an_exporter_tells_joules_watts_and_degrees_of_each_gpu_once(site, dcgm_text, pods):
    joules = {"GPU-a": 100.0, "GPU-b": 2000.0}
    with site(lambda: (200, dcgm_text(joules, power_w=250, pods=pods))) as exporter:
        meter = dcgm_meter(exporter.url)
        first = meter.read()
        assert (first.joules, first.power_w, first.temperature_c) == (2100, 500, 55)
        joules["GPU-b"] += 30
        wait_for(lambda: meter.read().joules == 2130)
        assert dcgm_meter(exporter.url, gpus=["GPU-b"]).read().joules == 2030
        assert between(meter, first, meter.read()).gross_j == 30
        assert "GPU-a at 127.0.0.1" in meter.scope


def test_the_default_interval_is_the_exporters_own():
    spec = MeterSpec.model_validate({"dcgm": {"url": "http://gpu1:9400/metrics"}})
    assert spec.root.dcgm.interval_s == INTERVAL_S == 30


def test_a_gpu_that_two_models_name_is_counted_once(site, dcgm_text):
    with site(lambda: (200, dcgm_text({"GPU-a": 100.0, "GPU-b": 2000.0}))) as exporter:
        both = dcgm_meter(exporter.url), dcgm_meter(exporter.url, gpus=["GPU-b"])
        assert total(both).read().joules == 2100
        assert total(both).devices == ("GPU-a", "GPU-b")


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (200, "DCGM_FI_DEV_GPU_TEMP 5\n", "shows no DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"),
        (200, 'DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{UUID="GPU-a} x\n', "not in Prometheus' text"),
        (404, "not here", "answers with 404: not here"),
    ],
)
def test_an_exporter_that_tells_no_energy_is_refused(site, status, text, reason):
    with site(lambda: (status, text)) as exporter:
        with pytest.raises(UserError, match=reason) as refused:
            dcgm_meter(exporter.url)
        assert ":9400/metrics" in refused.value.hint


def test_a_gpu_that_is_not_shown_is_refused(site, dcgm_text):
    with (
        site(lambda: (200, dcgm_text({"GPU-a": 1.0}))) as exporter,
        pytest.raises(UserError, match="no GPU 'GPU-x'") as refused,
    ):
        dcgm_meter(exporter.url, gpus=["GPU-x"])
    assert refused.value.hint == "known: GPU-a"


def test_a_server_tells_its_joules(site, trtllm_text):
    joules = [12345.6789]
    with site(lambda: (200, trtllm_text(joules[0]))) as server:
        meter = trtllm_meter(server.url)
        first = meter.read()
        joules[0] += 20
        wait_for(lambda: between(meter, first, meter.read()).gross_j == pytest.approx(20))
        assert "127.0.0.1" in meter.scope
        assert first.power_w is None


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (503, '{"error": "Energy monitoring is not available"}', "answers with 503.*not available"),
        (404, "Not Found", "answers with 404"),
        (200, "hello", "holds no total_energy_j"),
        (200, '{"total_energy_j": null}', "holds no total_energy_j"),
        (200, '{"total_energy_j": NaN}', "says nan J"),
    ],
)
def test_a_server_that_does_not_tell_is_refused(site, status, text, reason):
    with site(lambda: (status, text)) as server:
        with pytest.raises(UserError, match=reason) as refused:
            trtllm_meter(server.url)
        assert HIDDEN in refused.value.hint


def test_nobody_there_is_refused(site):
    with site(lambda: (200, "")) as gone:
        pass
    for make in (dcgm_meter, trtllm_meter):
        with pytest.raises(UserError, match=r"nothing answers at .*ConnectError"):
            make(gone.url)


def test_a_reply_that_fails_is_a_sample_without_joules_and_spoils_nothing(site, trtllm_text):
    answer = [200]
    with site(lambda: (answer[0], trtllm_text(time.perf_counter()))) as server:
        meter = trtllm_meter(server.url)
        first = meter.read()
        answer[0] = 500
        wait_for(lambda: meter.read().joules is None)
        inside = meter.read()
        assert "answers with 500" in inside.problem
        assert "answers with 500" in between(meter, first, inside).problem
        answer[0] = 200
        wait_for(lambda: meter.read().joules is not None)
        reading = between(meter, first, meter.read(), inside=[inside])
        assert reading.problem is None
        assert reading.gross_j > 0


def test_a_count_that_begins_anew_is_a_problem_for_good(site, dcgm_text, trtllm_text):
    joules = [1000.0]
    with (
        site(lambda: (200, trtllm_text(joules[0]))) as server,
        site(lambda: (200, dcgm_text({"GPU-a": joules[0]}))) as exporter,
    ):
        meters = trtllm_meter(server.url), dcgm_meter(exporter.url)
        for meter in meters:
            assert meter.read().joules == 1000
        joules[0] = 1.0
        for meter in meters:
            wait_for(lambda meter=meter: meter.read().joules is None)
            assert "went back" in meter.read().problem
        joules[0] = 5000.0
        time.sleep(0.1)
        for meter in meters:
            assert meter.read().joules is None


def test_an_exporter_that_looks_more_seldom_than_was_said_is_found_out(site, dcgm_text):
    with site(lambda: (200, dcgm_text({"GPU-a": 5.0}))) as exporter:
        meter = dcgm_meter(exporter.url)
        assert meter.read().joules == 5
        wait_for(lambda: meter.read().joules is None)
        assert "the exporter's count has not moved for" in meter.read().problem


def test_reads_do_not_wait_for_a_server_that_hangs(site, trtllm_text, monkeypatch):
    monkeypatch.setattr("tuner.measure.page.TIMEOUT_S", 0.2)
    with site(lambda: (200, trtllm_text(time.perf_counter()))) as server:
        meter = trtllm_meter(server.url)
        server.delay_s = 0.6
        slowest_s = 0.0
        while (sample := meter.read()).joules is not None:
            before_s = time.perf_counter()
            meter.read()
            slowest_s = max(slowest_s, time.perf_counter() - before_s)
            time.sleep(0.01)
        assert slowest_s < 0.1
        assert "Timeout" in sample.problem or "has not answered" in sample.problem


def test_a_meter_that_is_let_go_asks_no_more(site, trtllm_text):
    with site(lambda: (200, trtllm_text(time.perf_counter()))) as server:
        meter = trtllm_meter(server.url)
        wait_for(lambda: server.asked > 3)
        threads = [thread for thread in threading.enumerate() if thread.name == "tuner-meter-poll"]
        del meter
        gc.collect()
        for thread in threads:
            thread.join(timeout=5)
        assert not any(thread.is_alive() for thread in threads)
