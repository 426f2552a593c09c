"""Every study of the project loads, suits its task and can be run, on rows made here in the official files' formats."""

import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tuner.check import PROBED_CONFIGS
from tuner.check import check_study
from tuner.serving import Addressed
from tuner.serving import LlamaCpp
from tuner.serving import Vllm
from tuner.spec import load_study
from tuner.tasks import TASKS
from workflows import WORKFLOWS

ROOT = Path(__file__).resolve().parents[1]
STUDIES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("studies/**/*.yaml"))
SWEEPS = [name for name in STUDIES if "kim2025" in name]
ROWS = 200
REPLY = "Yes, I know it.\nAction 1: finish[forty-two]"
"""What agents are told on loopback: a step that ends, or a verdict, so that no budget has to be used up."""
COMMENTED_MODEL = re.compile(r"^  # (\S+-\S+:|  \w+: .+)$", flags=re.MULTILINE)


def hotpotqa(number: int) -> dict[str, Any]:
    page = [f"Lake {number}", [f"Lake {number} is a lake.", " It is fed by the Lorn."]]
    return {
        "_id": f"id{number}",
        "question": f"Which river feeds Lake {number}?",
        "answer": "Lorn",
        "type": "bridge",
        "level": "hard",
        "supporting_facts": [[f"Lake {number}", 1]],
        "context": [page],
    }


def musique(number: int) -> dict[str, Any]:
    page = {"title": f"Lake {number}", "paragraph_text": "The lake is fed by the Lorn."}
    return {
        "id": f"2hop__{number}",
        "question": f"Which river feeds Lake {number}?",
        "answer": "Lorn",
        "answer_aliases": [],
        "question_decomposition": [{}, {}],
        "paragraphs": [{"idx": 0, **page, "is_supporting": True}],
    }


def strategyqa(number: int) -> dict[str, Any]:
    return {
        "qid": f"id{number}",
        "term": f"Lake {number}",
        "description": "Lake",
        "question": f"Could a heron drink from Lake {number}?",
        "answer": number % 2 == 0,
        "facts": [f"Lake {number} holds fresh water."],
        "decomposition": [],
    }


def gsm8k(number: int) -> dict[str, Any]:
    return {
        "question": f"A box holds 6 eggs. How many do {number} boxes hold?",
        "answer": f"They hold {number}*6={number * 6}.\n#### {number * 6}",
    }


def math(number: int) -> dict[str, Any]:
    return {
        "problem": f"What is ${number} + 1$?",
        "solution": rf"It is $\boxed{{{number + 1}}}$.",
        "answer": f"{number + 1}",
        "subject": "Algebra",
        "level": 1,
        "unique_id": f"test/algebra/{number}.json",
    }


def humaneval(number: int) -> dict[str, Any]:
    return {
        "task_id": f"HumanEval/{number}",
        "prompt": f'def add{number}(x: int) -> int:\n    """ Add {number} to x. """\n',
        "entry_point": f"add{number}",
        "canonical_solution": f"    return x + {number}\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {number + 1}\n",
    }


def mbpp(number: int) -> dict[str, Any]:
    return {
        "source_file": "Benchmark Questions Verification V2.ipynb",
        "task_id": number,
        "prompt": f"Write a function to add {number}.",
        "code": f"def add{number}(x):\n    return x + {number}",
        "test_imports": [],
        "test_list": [f"assert add{number}(1) == {number + 1}"],
    }


def question(number: int) -> dict[str, Any]:
    return {"question": f"Which river feeds Lake {number}?", "answer": "Lorn"}


def page(number: int) -> dict[str, Any]:
    return {"title": f"Lake {number}", "text": "The lake is fed by the Lorn."}


OFFICIAL: Mapping[str, Callable[[int], dict[str, Any]]] = {
    "hotpot_dev_distractor_v1.json": hotpotqa,
    "musique_ans_v1.0_dev.jsonl": musique,
    "dev.json": strategyqa,
    "test.jsonl": gsm8k,
    "math_500.jsonl": math,
    "HumanEval.jsonl.gz": humaneval,
    "sanitized-mbpp.json": mbpp,
    "questions.jsonl": question,
    "pages.jsonl": page,
}
"""The files that studies name, and what makes a row of each: a JSON array in .json, else a row a line."""


def write_rows(folder: Path) -> None:
    for name, row in OFFICIAL.items():
        rows = [row(number) for number in range(1, ROWS + 1)]
        lines = "".join(json.dumps(each) + "\n" for each in rows)
        data = (json.dumps(rows) if name.endswith(".json") else lines).encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's studies and search spaces, with the data files beside them that the studies name."""
    folder = tmp_path_factory.mktemp("project")
    for part in ("studies", "search_spaces"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("*.db*"))
    (folder / "data").mkdir()
    write_rows(folder / "data")
    return folder


@pytest.fixture(scope="module")
def loopback() -> Iterator[str]:
    """The address of a server that answers every request at once."""
    command = [sys.executable, str(ROOT / "benchmarks" / "loopback.py"), "--text", REPLY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["api_base"]
        process.terminate()


def skip_without_its_extra(name: str) -> None:
    if "math" in name and find_spec("math_verify") is None:
        pytest.skip("math-verify is not installed: pip install 'tuner[math]'")


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_loads_and_its_workflows_suit_its_task(folder: Path, name: str) -> None:
    skip_without_its_extra(name)
    study = load_study(folder / name)
    task = study.load_task()
    assert len(task.search) == study.task_options.examples
    assert len(task.holdout) == study.task_options.holdout


@pytest.mark.parametrize("name", STUDIES)
def test_a_model_that_is_commented_out_can_be_let_in(folder: Path, name: str) -> None:
    text, lines = COMMENTED_MODEL.subn(r"  \1", (ROOT / name).read_text())
    path = (folder / name).with_suffix(".all.yaml")
    path.write_text(text)
    study = load_study(path)
    assert len(study.models) == len(load_study(folder / name).models) + bool(lines)
    assert name == "studies/quickstart.yaml" or any(
        isinstance(model, Addressed | Vllm) and model.grammar == "vllm"
        for model in study.spec.models.values()
    ) != name.startswith("studies/kim2025/smollm2/")


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_a_study(name: str) -> None:
    assert load_study(ROOT / "studies" / f"{name}.yaml").spec.task["name"] == name


def test_the_study_of_all_workflows_has_them_all() -> None:
    assert set(load_study(ROOT / "studies" / "villages.yaml").space.workflows) == set(WORKFLOWS)


def test_studies_have_names_of_their_own_and_every_search_space_is_used() -> None:
    studies = [load_study(ROOT / name) for name in STUDIES]
    assert len({study.spec.name for study in studies}) == len(studies)
    used = {study.space_path.resolve() for study in studies}
    assert used == set(ROOT.glob("search_spaces/**/*.yaml"))


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_tries_every_config_of_its_space(name: str) -> None:
    study = load_study(ROOT / name)
    size = study.space.size(study.models)
    assert study.spec.budget.trials == size
    assert study.spec.sampler.name == "random"
    assert f"# All {size} configs: " in (ROOT / name).read_text()
    # A sweep in small runs as it is; the others need a server and its GPUs, or an engine and some.
    for model in study.spec.models.values():
        assert isinstance(model, LlamaCpp if "smollm2" in name else Addressed | Vllm)


def test_the_guide_lists_every_sweep_with_its_size() -> None:
    guide = (ROOT / "docs" / "kim2025.md").read_text()
    rows = re.findall(r"^\| `((?:smollm2/)?\w+)` \|.* (\d+) \|$", guide, flags=re.MULTILINE)
    known = {name.removeprefix("studies/kim2025/").removesuffix(".yaml"): name for name in SWEEPS}
    assert sorted(study for study, _ in rows) == sorted(known)
    for study, size in rows:
        assert load_study(ROOT / known[study]).spec.budget.trials == int(size)


def on_loopback(path: Path, api_base: str) -> Path:
    """The study with a single question and every model on that server, which has no meter: tokens take the place of energy."""
    content = yaml.safe_load(path.read_text())
    content["task"]["examples"] = 1
    for name, model in content["models"].items():
        kept = {key: model[key] for key in ("grammar", "json_schema") if key in model}
        content["models"][name] = {"model": "hosted_vllm/loopback", "api_base": api_base, **kept}
    objectives = [name for name in content["objectives"] if name != "energy_wh"]
    content["objectives"] = list(dict.fromkeys([*objectives, "tokens_total"]))
    copy = path.with_suffix(".loopback.yaml")
    copy.write_text(yaml.safe_dump(content))
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in STUDIES if "smollm2" not in name])
def test_a_study_passes_its_check(folder: Path, loopback: str, name: str) -> None:
    skip_without_its_extra(name)
    study = load_study(on_loopback(folder / name, loopback))
    forecast = check_study(study)
    assert forecast.probes == PROBED_CONFIGS
    assert forecast.configs == study.space.size(study.models)
    assert set(forecast.energy.values()) == {"none"}
