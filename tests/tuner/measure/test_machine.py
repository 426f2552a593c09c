import pynvml

from tuner.measure import machine as module
from tuner.measure.machine import machine


def test_a_machine_is_named_by_its_processors_and_gpus(nvml, monkeypatch, tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name\t: A Fast Chip @ 2.0GHz\nmodel name : Another\n")
    monkeypatch.setattr(module, "CPUINFO", cpuinfo)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert machine() == "Linux x86_64, 4 × A Fast Chip @ 2.0GHz, 2 × Scripted GPU"
    assert nvml.users == 0


def test_what_has_no_name_is_named_by_its_architecture(nvml, monkeypatch, tmp_path):
    monkeypatch.setattr(nvml, "nvmlDeviceGetCount_v2", lambda count: pynvml.NVML_ERROR_TIMEOUT)
    monkeypatch.setattr(module, "CPUINFO", tmp_path / "nowhere")
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr("platform.processor", lambda: "")
    assert machine() == "Linux aarch64, 4 × CPU (aarch64)"
