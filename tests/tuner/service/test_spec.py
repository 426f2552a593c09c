import re
from pathlib import Path

import pytest

from tuner.errors import SpecError
from tuner.service.spec import ServiceSpec
from tuner.service.spec import load_service

MODELS = "models: {m: {model: openai/m, api_base: http://127.0.0.1:9/v1}}\n"


def write(folder, text):
    path = folder / "service.yaml"
    path.write_text(text)
    return path


def test_a_service_needs_no_more_than_models(tmp_path):
    service = load_service(write(tmp_path, f"format_version: 1\n{MODELS}"))
    assert service.storage_url == f"sqlite:///{tmp_path}/tuner-service.db"
    assert service.folder == tmp_path / "tuner-service"
    assert (service.spec.host, service.spec.port, service.spec.parallel) == ("127.0.0.1", 8090, 4)
    assert not service.listens_to_others


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "example.org", "::"])
def test_what_others_can_reach_is_known(tmp_path, host):
    service = load_service(write(tmp_path, f'format_version: 1\nhost: "{host}"\n{MODELS}'))
    assert service.listens_to_others


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"format_version: 1\nparalel: 2\n{MODELS}", r"service.yaml:2: paralel: unknown key; known: .*parallel"),
        (f"format_version: 1\nparallel: 0\n{MODELS}", r":2: parallel: "),
        (f"format_version: 1\nport: 70000\n{MODELS}", r":2: port: "),
        ("format_version: 1\nmodels: {}\n", r":2: models: "),
        (f"format_version: 2\n{MODELS}", r":1: format_version: "),
        (f"format_version: 1\nstorage: nonsense\n{MODELS}", r":2: storage: is no database URL"),
        (f"format_version: 1\nstorage: sqlite://\n{MODELS}", r":2: storage: "),
        (f"format_version: 1\nstorage: postgresql+psycopg://a:secret@db/x\n{MODELS}", r":2: storage: holds a password"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(tmp_path, text, said):
    with pytest.raises(SpecError, match=said) as refused:
        load_service(write(tmp_path, text))
    assert refused.value.hint
    assert "secret" not in str(refused.value)


def test_files_of_models_are_found_from_any_folder(tmp_path):
    (tmp_path / "m.gguf").touch()
    text = """\
format_version: 1
models:
  a: {serve: llama.cpp, weights: m.gguf, meter: {replay: power.csv}}
  b: {serve: llama.cpp, weights: smollm2-135m-instruct}
"""
    models = load_service(write(tmp_path, text)).models()
    assert models["a"] == {
        "serve": "llama.cpp",
        "weights": str(tmp_path / "m.gguf"),
        "meter": {"replay": str(tmp_path / "power.csv")},
    }
    assert models["b"]["weights"] == "smollm2-135m-instruct"


GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "service.md").read_text()


def test_the_guides_file_loads_and_has_every_key(tmp_path):
    (text,) = re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)
    service = load_service(write(tmp_path, text))
    assert service.spec.model_fields_set == set(ServiceSpec.model_fields)
