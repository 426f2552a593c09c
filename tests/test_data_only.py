"""Files from strangers are data: nothing in either package can make code of one."""

import ast
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path for package in ("workflows", "tuner") for path in (ROOT / package).rglob("*.py")
)

MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "imp", "code"}
"""Whose use makes code of data."""

CALLS = {"eval", "exec", "compile", "execfile", "__import__"}
"""Builtins that do."""

ATTRIBUTES = {"unsafe_load", "full_load", "FullLoader", "UnsafeLoader", "load_all", "allow_pickle"}
"""Of yaml and numpy."""

ALLOWED = {
    ("tuner/tasks/judge.py", "exec"): "runs within the sandbox: a program and its tests",
    ("tuner/tasks/judge.py", "compile"): "runs within the sandbox: a program and its tests",
    ("workflows/yaml_data.py", "yaml.load"): "with a SafeLoader, and bounds",
}
"""File and call, and why it is no way in."""

IMPORTERS = {
    "tuner/__init__.py": "names of its own table",
    "tuner/samplers/__init__.py": "names of its own table",
    "tuner/tasks/__init__.py": "names of its own table",
    "tuner/cli/__init__.py": "names of its own table",
    "workflows/__init__.py": "names of its own table",
    "workflows/table.py": "names of its own table",
    "workflows/tools/__init__.py": "names of its own table",
    "workflows/custom.py": "an import path of the user's: a study's, or an export's that --allow-custom lets in",
}
"""Modules that import by a name that is computed, and whose names those are."""


def uses(tree: ast.Module) -> Iterator[str]:
    """What a module uses of the above."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            yield node.module
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in CALLS:
                yield node.func.id
        elif isinstance(node, ast.Attribute):
            if node.attr in ATTRIBUTES:
                yield node.attr
            if isinstance(node.value, ast.Name) and (node.value.id, node.attr) == ("yaml", "load"):
                yield "yaml.load"
        if isinstance(node, ast.keyword) and node.arg in ATTRIBUTES:
            yield node.arg


def test_nothing_makes_code_of_data() -> None:
    found = set()
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        found |= {(name, use) for use in uses(ast.parse(path.read_text(encoding="utf-8")))}
    assert found == ALLOWED.keys()


def test_what_the_scan_looks_for_is_found() -> None:
    source = """
import pickle, yaml
from marshal import loads
eval("1"); exec("1"); compile("1", "", "eval"); __import__("os")
yaml.load(text, Loader=yaml.FullLoader); yaml.unsafe_load(text)
numpy.load(path, allow_pickle=True)
"""
    assert set(uses(ast.parse(source))) == {
        "pickle", "marshal", "eval", "exec", "compile", "__import__", "yaml.load", "FullLoader",
        "unsafe_load", "allow_pickle",
    }  # fmt: skip


@pytest.mark.slow
def test_who_imports_by_a_computed_name_is_known() -> None:
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Name) and node.id == "import_module":
                found.add(path.relative_to(ROOT).as_posix())
    assert found <= IMPORTERS.keys()


def test_commands_are_started_without_a_shell() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.keyword) and node.arg == "shell"), path
            names = {"os.system", "os.popen", "subprocess.getoutput"}
            assert not (isinstance(node, ast.Attribute) and ast.unparse(node) in names), path
            assert "create_subprocess_shell" not in getattr(node, "attr", ""), path


def small_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in a process that may take 4 GiB of addresses and 60 seconds."""
    return subprocess.run(
        [sys.executable, "-P", "-c", "from tuner.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=small_memory,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )


LAUGHS = "a0: &a0 [x]\n" + "\n".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)
)
LOOKS = {
    "laughs": LAUGHS,
    "deep": "a: " + "[" * 100_000,
    "digits": "format_version: " + "9" * 10_000,
    "long": "#" * (1 << 23),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ("check", "FILE"),
        ("ask", "FILE", "What?"),
        ("forecast", "FILE", "--queries-per-day", "9"),
        ("verify", "FILE"),
    ],
    ids=lambda command: command[0],
)
def test_a_bomb_of_yaml_is_a_mistake_of_whoever_gave_it(
    tmp_path: Path, command: tuple[str]
) -> None:
    for name, text in LOOKS.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        began = time.perf_counter()
        ended = run(*(path if part == "FILE" else part for part in command))
        assert ended.returncode == 2, ended.stderr
        assert f"error: {path}" in ended.stderr
        assert "\nhint: " in ended.stderr
        assert "Traceback" not in ended.stderr
        assert len(ended.stderr) < 2000
        assert time.perf_counter() - began < 30


def test_a_table_that_names_code_is_refused_or_passed_over(tmp_path: Path) -> None:
    from tuner.table import Table
    from workflows.config import AgentConfig

    mark = tmp_path / "ran"
    (tmp_path / "stranger.py").write_text(f"open({str(mark)!r}, 'w')\n")
    config = AgentConfig(workflow="stranger:answer", model="m", params={})
    line = {
        "id": config.hash(), **config.model_dump(), "anytime": None, "energy_source": "none", "energy_scope": "",
    }  # fmt: skip
    header = {
        "format_version": 1, "study": "s", "recorded_on": "2026-01-31",
        "task": {"name": "villages", "options": {}, "fingerprint": "f"}, "search": ["q1"], "holdout": [],
        "search_space": {"name": "s", "fingerprint": "f"}, "models": {"m": {"model": "openai/m"}},
        "load": {"concurrency": 1, "rate": None, "warm_up": 0, "cool_down": 0}, "cache": "isolated",
        "provenance": {"machine": "", "python": "", "versions": {}, "models": {"m": {
            "settings": {"model": "openai/m"}, "serve": {"serve": "vllm", "command": ["touch", str(mark)]},
            "cache": "", "energy": {"source": "none", "scope": "", "gpus": 0}}}},
        "configs": 1, "rows": 0,
    }  # fmt: skip
    path = tmp_path / "table.jsonl"
    path.write_text(json.dumps(header) + "\n" + json.dumps(line) + "\n")
    sys.path.insert(0, str(tmp_path))
    try:
        table = Table.read(path)
        table.runs(config)
        list(table.recorded)
    finally:
        sys.path.remove(str(tmp_path))
    assert "stranger" not in sys.modules
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["../secret.jsonl", "/etc/passwd", "a/b.jsonl", "a\\b.jsonl", ".."]
)
def test_an_export_reads_nothing_that_is_not_beside_it(tmp_path: Path, name: str) -> None:
    from workflows import ConfigError
    from workflows import load

    path = tmp_path / "folder" / "best.yaml"
    path.parent.mkdir()
    (tmp_path / "secret.jsonl").write_text('{"title": "secret", "sentences": []}\n')
    path.write_text(
        "format_version: 1\n"
        "config: {workflow: direct, model: m}\n"
        "models: {m: {settings: {model: openai/m}}}\n"
        "pack: {instruction: Answer.}\n"
        f"beside: {{documents: {{file: {json.dumps(name)}, sha256: {'0' * 64!r}}}}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert "secret" not in str(caught.value).replace(name, "")
