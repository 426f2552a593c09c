import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from workflows import AgentConfig
from workflows import AgentPack
from workflows import ConfigError
from workflows import Document
from workflows import ModelSettings
from workflows import Product
from workflows.config import AgentFile
from workflows.config import ExportedModel
from workflows.config import dump_agent_file
from workflows.config import load_agent_file

KNOBS = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
)
PARAMS = st.dictionaries(st.text(), KNOBS, max_size=5)


def config(**params: Any) -> AgentConfig:
    return AgentConfig(workflow="react", model="m", params=params)


def test_the_hash_is_stable() -> None:
    """Results are kept under it: a change here makes every stored result unreachable."""
    assert config(max_steps=7, temperature=0.5, thoughts=True, at_budget="empty").hash() == (
        "8ae0609d38d1aea8"
    )


@given(PARAMS)
def test_the_hash_ignores_the_order_of_params(params: dict[str, Any]) -> None:
    backwards = dict(reversed(params.items()))
    assert config().model_copy(update={"params": params}).hash() == (
        config().model_copy(update={"params": backwards}).hash()
    )


def test_numbers_hash_by_value_and_booleans_apart() -> None:
    assert config(x=0).hash() == config(x=0.0).hash() == config(x=-0.0).hash()
    assert config(x=1).hash() == config(x=1.0).hash()
    hashes = [config(x=knob).hash() for knob in (True, 1, "1", "True", 1.5, False, 0, "", 10**17)]
    assert len(set(hashes)) == len(hashes)
    assert config(x=1).hash() != config(y=1).hash()
    assert config(x=1).hash() != config(x=1).model_copy(update={"model": "n"}).hash()


@pytest.mark.parametrize("knob", [True, 1, 1.0, "1"])
def test_knobs_keep_their_type(knob: object) -> None:
    kept = AgentConfig.model_validate_json(config(x=knob).model_dump_json()).params["x"]
    assert type(config(x=knob).params["x"]) is type(kept) is type(knob)


@pytest.mark.parametrize("knob", [None, [1], {"a": 1}, float("nan"), float("inf")])
def test_other_knobs_are_refused(knob: object) -> None:
    with pytest.raises(ValidationError):
        config(x=knob)


MODEL = ExportedModel(
    settings=ModelSettings(model="hosted_vllm/x", api_base="http://127.0.0.1:1/v1")
)


def agent_file(**changes: Any) -> AgentFile:
    content: dict[str, Any] = {
        "format_version": 1,
        "config": config(max_steps=7, temperature=0.0, thoughts=True),
        "models": {"m": MODEL},
        "pack": AgentPack(instruction="Answer."),
        "provenance": {"study": "villages", "energy_wh": None, "values": {"accuracy": 0.5}},
    }
    return AgentFile(**{**content, **changes})


DOCUMENTS = (
    Document(title="Größe", sentences=("Zeile\u2028eins.", 'Say "no".\nTwo lines.')),
    Document(title="Oak", sentences=()),
)


def test_a_file_without_documents_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    dump_agent_file(agent_file(), path)
    assert load_agent_file(path) == agent_file()
    assert [entry.name for entry in tmp_path.iterdir()] == ["best.yaml"]


def test_documents_stand_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    agent = agent_file(pack=AgentPack(instruction="Answer.", documents=DOCUMENTS))
    dump_agent_file(agent, path)
    beside = tmp_path / "best.documents.jsonl"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert "documents" not in content["pack"]
    digest = hashlib.sha256(beside.read_bytes()).hexdigest()
    assert content["beside"] == {"documents": {"file": beside.name, "sha256": digest}}
    assert len(beside.read_bytes().splitlines()) == 2
    loaded = load_agent_file(path)
    assert loaded.pack == agent.pack
    assert loaded.config == agent.config
    assert loaded.provenance == agent.provenance


@given(st.text(), PARAMS)
@example("line\x85separators\u2028of unicode", {"\x85": " x \n\n y"})
def test_any_text_survives_the_file(text: str, params: dict[str, Any]) -> None:
    agent = agent_file(
        pack=AgentPack(instruction=text),
        config=AgentConfig(workflow=text, model=text, params=params),
        models={text: MODEL},
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "best.yaml"
        dump_agent_file(agent, path)
        loaded = load_agent_file(path)
    assert loaded == agent
    assert loaded.config.hash() == agent.config.hash()


def test_changed_documents_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    dump_agent_file(agent_file(pack=AgentPack(instruction="Answer.", documents=DOCUMENTS)), path)
    beside = tmp_path / "best.documents.jsonl"
    beside.write_bytes(beside.read_bytes().replace(b"no", b"yes"))
    with pytest.raises(ConfigError, match=r"best\.documents\.jsonl: .*sha256") as caught:
        load_agent_file(path)
    assert caught.value.hint.startswith("copy it again")
    beside.unlink()
    with pytest.raises(ConfigError, match=r"best\.documents\.jsonl: cannot be read") as caught:
        load_agent_file(path)
    assert caught.value.hint is not None


def test_documents_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    lines = json.dumps({"title": "x"}).encode()
    (tmp_path / "d.jsonl").write_bytes(lines)
    digest = hashlib.sha256(lines).hexdigest()
    path.write_text(with_change(beside={"documents": {"file": "d.jsonl", "sha256": digest}}))
    with pytest.raises(ConfigError, match=r"d\.jsonl: Field required"):
        load_agent_file(path)


def with_change(**changes: Any) -> str:
    content = json.loads(agent_file().model_dump_json(exclude_none=True))
    return yaml.safe_dump({**content, **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a list", "format_version"),
        ("", "format_version"),
        (with_change(format_version=2), r"format_version: .*\(given: 2\)"),
        (with_change(colour="red"), r"colour: .*\(given: 'red'\)"),
        (with_change(models={"m": {"key": "y"}}), r"models\.m\.settings: "),
        (
            with_change(models={"m": {"settings": {"model": "x", "timeout_s": "9"}}}),
            r"models\.m\.settings\.timeout_s: .*'9'",
        ),
        (with_change(models={}), "models: lacks 'm', which the config uses"),
        (with_change(config={"workflow": "cot"}), r"config\.model: "),
        (
            with_change(beside={"documents": {"file": "../other.jsonl", "sha256": ""}}),
            r"beside\.documents\.file: ",
        ),
        (
            with_change(beside={"pictures": {"file": "p.jsonl", "sha256": ""}}),
            r"beside\.pictures: unknown part",
        ),
        ("a: [", "not YAML"),
        ("\t", "not YAML"),
        ("x: !!python/object/apply:os.system ['true']", "not YAML"),
        ("format_version: 1\nconfig: !!python/object:workflows.AgentConfig {}", "not YAML"),
    ],
)
def test_what_cannot_be_used_is_refused_by_file_and_key(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "best.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"best\.yaml: {message}"):
        load_agent_file(path)


def test_no_text_and_no_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    with pytest.raises(ConfigError, match=r"best\.yaml: cannot be read: No such file"):
        load_agent_file(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match=r"best\.yaml: not YAML"):
        load_agent_file(path)


def test_products_stand_beside_the_file_too(tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    products = tuple(
        Product(asin=f"B{n}", title="Lamp", price=9.5, options=(("colour", ("red", "blue")),))
        for n in range(3)
    )
    pack = AgentPack(instruction="Buy.", answer="action", products=products, documents=DOCUMENTS)
    dump_agent_file(agent_file(pack=pack), path)
    names = ["best.documents.jsonl", "best.products.jsonl", "best.yaml"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == names
    assert load_agent_file(path).pack == pack
