"""Whatever a user gets wrong ends with status 2, `error:` on stderr, nothing on stdout and no traceback."""

import ast
import json
import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tuner.store.tables import SCHEMA_VERSION

ROOT = Path(__file__).resolve().parents[3]
SPACE = """\
format_version: 1
name: s
workflows:
  direct: {few_shot: [0, 2]}
  react: {max_steps: [1, 2]}
"""
STUDY = """\
format_version: 1
name: small
task: {name: jsonl, path: questions.jsonl, examples: 4, holdout: 4}
search_space: space.yaml
models: {m: {model: hosted_vllm/m, api_base: "http://127.0.0.1:9/v1"}}
objectives: [accuracy, latency_p50_s]
budget: {trials: 4}
"""


@pytest.fixture
def study(tmp_path):
    """Writes the study above with one text replaced, in itself or its space; gives its path."""

    def write(old: str = "", new: str = "") -> Path:
        assert (STUDY + SPACE).count(old) == 1 or not old
        (tmp_path / "space.yaml").write_text(SPACE.replace(old, new))
        rows = [json.dumps({"question": f"Question {n}?", "answer": "yes"}) for n in range(8)]
        (tmp_path / "questions.jsonl").write_text("\n".join(rows))
        path = tmp_path / "study.yaml"
        path.write_text(STUDY.replace(old, new))
        return path

    return write


@pytest.fixture
def refused(tuner):
    """The lines that a refused command says, from `error:` on."""

    def call(*arguments: object) -> str:
        ended = tuner(*arguments)
        assert (ended.code, ended.out) == (2, ""), ended
        assert "Traceback" not in ended.err
        place = ended.err.find("error: ")
        assert place == 0 or ended.err[place - 1] == "\n", ended.err
        *_, hint = ended.err.splitlines()
        assert hint.startswith("hint: "), ended.err
        return ended.err[place:]

    return call


def run_apart(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", "from tuner.cli import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | environment,
    )


@pytest.mark.parametrize(
    "verb", ["check", "run", "status", "front", "effects", "export", "dashboard"]
)
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: small", "nane: small", "study.yaml:2: nane: unknown key; known: format_version, name,"),
        ("trials: 4", "trials: four", "study.yaml:7: budget.trials: input should be a valid integer, not 'four'"),
        ("react: {", "reakt: {", "space.yaml:5: workflows.reakt: unknown workflow 'reakt'; known: direct, cot,"),
        ("max_steps: [1, 2]", "max_steps: {low: 1, high: 99}", "space.yaml:5: workflows.react.max_steps: 99 is outside the workflow's bounds"),
        ("max_steps: ", "steps: ", "space.yaml:5: workflows.react.steps: unknown knob 'steps' of react; known:"),
        ("name: jsonl", "name: hotpot", "study.yaml:3: task.name: unknown task 'hotpot'; known: villages,"),
        ("latency_p50_s", "latency", "study.yaml:6: objectives: unknown objective 'latency'; known: accuracy,"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_file_is_told_by_every_verb_that_reads_it(
    study, refused, verb, old, new, message
):
    assert message in refused(verb, study(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("{model: hosted_vllm/m, api_base: \"http://127.0.0.1:9/v1\"}", "{serve: llama.cpp, weights: none.gguf}", "weights: no file ", "a relative path starts from the study file's folder"),
        ("{model: hosted_vllm/m, api_base: \"http://127.0.0.1:9/v1\"}", "{serve: llama.cpp, weights: gpt-9}", "weights: 'gpt-9' is not known; known: smollm2-135m-instruct", "or give a path"),
        ("{model: hosted_vllm/m, api_base: \"http://127.0.0.1:9/v1\"}", "{serve: vllm, model: a/b, command: [no-such-engine]}", "models.m: `serve: vllm` needs the program 'no-such-engine', which is not there", "install it, or say where it is: command: [/path/to/no-such-engine, …]"),
        ("{model: hosted_vllm/m, api_base: \"http://127.0.0.1:9/v1\"}", "{serve: sglang, model: ./none, prefix_cache: [true, false]}", "model: no folder ", "a relative path starts from the study file's folder"),
        ("{model: hosted_vllm/m, api_base: \"http://127.0.0.1:9/v1\"}", "{serve: vllm, model: a/b, command: [sh, -c, 'echo no device; exit 3']}", "models.m: the vllm server stopped while starting (exit code 3); the end of its log:\nno device", None),
        ("name: small", "name: small", "models.m: nothing answers at http://127.0.0.1:9/v1", "start the server"),
        ('hosted_vllm/m, api_base: "http://127.0.0.1:9/v1"}', "openai/m, meter: {cpu_estimate: {}}}", "cpu_estimate needs a server that the study starts", "use `serve:`"),
        ("questions.jsonl", "none.jsonl", "none.jsonl: cannot be read: No such file", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["check", "run"])
def test_what_a_study_needs_is_looked_at_before_its_first_trial(
    study, refused, verb, old, new, message, hint
):
    said = refused(verb, study(old, new))
    assert said.startswith("error: ")
    assert message in said
    assert hint is None or f"\nhint: {hint}" in said


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("energy_wh", "energy_wh needs a meter, and model 'm' has none"),
        ("cost_usd", "litellm has no price for model 'openai/no-such-model'"),
    ],
)
def test_an_objective_that_nothing_measures_is_refused(study, refused, objective, message):
    path = study("latency_p50_s", objective)
    hosted = "{model: openai/no-such-model}"
    path.write_text(
        path.read_text().replace(
            '{model: hosted_vllm/m, api_base: "http://127.0.0.1:9/v1"}', hosted
        )
    )
    said = refused("check", path)
    assert message in said
    assert "\nhint: " in said


def test_a_server_on_gpus_needs_a_meter_before_it_is_started(study, refused):
    model = '{model: hosted_vllm/m, api_base: "http://127.0.0.1:9/v1"}'
    path = study("latency_p50_s", "energy_wh")
    text = path.read_text().replace(model, "{serve: vllm, model: a/b, command: [no-such-engine]}")
    path.write_text(text)
    assert "energy_wh needs a meter, and model 'm' has none" in refused("check", path)
    path.write_text(text.replace("no-such-engine]", "no-such-engine], meter: {cpu_estimate: {}}"))
    assert "needs the program 'no-such-engine'" in refused("check", path)


def test_a_malformed_row_of_a_dataset_is_named(study, refused, tmp_path):
    path = study()
    (tmp_path / "questions.jsonl").write_text(
        '{"question": "Q?", "answer": "A"}\n{"question": 3}\n'
    )
    said = refused("check", path)
    assert "questions.jsonl: line 2: " in said
    assert "\nhint: each row is a JSON object with the keys question, answer" in said


@pytest.mark.parametrize("verb", ["status", "front", "effects", "export", "dashboard"])
def test_a_reading_verb_without_a_storage_says_what_to_run(study, refused, tmp_path, verb):
    said = refused(verb, study())
    assert "tuner.db: there is no such file yet\nhint: run it first: tuner run STUDY" in said
    assert not (tmp_path / "tuner.db").exists()


VERBS = [
    ("status",),
    ("front",),
    ("show", 0),
    ("trace", 0, "search-001"),
    ("export",),
    ("dashboard",),
]


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
@pytest.mark.parametrize("missing", ["study.yaml", "."])
def test_a_study_that_is_no_file_is_refused(refused, tmp_path, verb, missing):
    assert "cannot be read: " in refused(verb[0], tmp_path / missing, *verb[1:])


@pytest.mark.parametrize("verb", [*VERBS, ("run",)], ids=lambda verb: verb[0])
def test_a_storage_that_another_space_wrote_is_refused(keep, refused, tmp_path, verb):
    keep()
    space = tmp_path / "space.yaml"
    space.write_text(space.read_text().replace("[0, 2]", "[0, 4]"))
    said = refused(verb[0], tmp_path / "study.yaml", *verb[1:])
    assert "holds this study with another search space;" in said
    assert "\nhint: give the study a new name or another storage" in said


@pytest.mark.parametrize("verb", [*VERBS, ("run",)], ids=lambda verb: verb[0])
def test_a_storage_that_a_newer_tuner_wrote_is_refused(keep, refused, tmp_path, verb):
    keep()
    with sqlite3.connect(tmp_path / "tuner.db") as connection:
        connection.execute("UPDATE tuner_alembic_version SET version_num = '9999'")
    connection.close()
    said = refused(verb[0], tmp_path / "study.yaml", *verb[1:])
    assert f"was written by a newer tuner (schema 9999, this one knows {SCHEMA_VERSION})" in said
    assert "\nhint: upgrade tuner" in said


def test_a_storage_that_is_no_database_is_refused(study, refused, tmp_path):
    (tmp_path / "tuner.db").write_text("words " * 200)
    for verb in ("front", "run"):
        assert "file is not a database" in refused(verb, study())


def test_an_unknown_trial_example_or_rule_lists_what_there_is(keep, found, refused, tmp_path):
    study = keep(found("direct", {}, search=[(1, 1, 1)] * 4))
    ids = [example.id for example in study.load_task().search]
    path = tmp_path / "study.yaml"
    assert refused("show", path, 7) == "error: there is no trial 7\nhint: they go from 0 to 0\n"
    assert refused("trace", path, 7, ids[0]).startswith("error: there is no trial 7\n")
    said = refused("trace", path, 0, "nope")
    assert said.startswith("error: trial 0 has no example 'nope'\nhint: it has: ")
    assert all(name in said for name in ids)
    said = refused("trace", path, 0, f"{ids[0]}0")
    assert f"hint: did you mean {ids[0]}? it has: " in said
    said = refused("export", path, "--rule", "best")
    assert said.startswith("error: unknown rule 'best'\nhint: known: knee; max-accuracy; min-energy; min-latency; ")  # fmt: skip


def test_a_rule_is_refused_before_anything_is_read(refused, tmp_path):
    said = refused("export", tmp_path / "none.yaml", "--rule", "cheapest-within:2%")
    assert said.startswith("error: rule 'cheapest-within:2%': '2%' is no number\nhint: known: ")


def test_an_empty_study_has_no_trial_and_nothing_to_export(keep, refused, tmp_path):
    keep()
    path = tmp_path / "study.yaml"
    assert refused("show", path, 0).startswith("error: there is no trial 0\nhint: there are none ")
    assert "\nhint: tuner status " in refused("export", path)


@pytest.mark.parametrize("out", [".", "none/best.yaml"])
def test_a_place_where_no_export_can_be_written(keep, found, refused, tmp_path, out):
    keep(found("direct", {}, search=[(1, 1, 1)] * 4))
    said = refused("export", tmp_path / "study.yaml", "--out", tmp_path / out)
    assert said.startswith("error: --out: ")


@pytest.mark.parametrize("content", [None, "format_version: 1\nname: s\n", "- 1\n", "{", "\x00"])
def test_asking_a_file_that_is_no_export(refused, tmp_path, content):
    file = tmp_path / "best.yaml"
    if content is not None:
        file.write_text(content)
    assert str(file) in refused("ask", file, "Where?")


def test_asking_a_model_that_is_gone(keep, found, tuner, refused, tmp_path):
    keep(found("direct", {}, search=[(1, 1, 1)] * 4))
    best = tmp_path / "best.yaml"
    assert tuner("export", tmp_path / "study.yaml", "--out", best).out == f"{best}\n"
    assert "nothing answers at http://127.0.0.1:9/v1" in refused("ask", best, "Where?")


def test_init_overwrites_nothing(refused, tmp_path):
    (tmp_path / "studies").mkdir()
    mine = tmp_path / "studies" / "quickstart.yaml"
    mine.write_text("mine")
    said = refused("init", tmp_path)
    assert said == f"error: {mine} exists already\nhint: name another folder: tuner init DIR\n"
    assert mine.read_text() == "mine"
    assert not (tmp_path / "search_spaces").exists()


def test_a_port_that_is_taken(keep, refused, tmp_path):
    keep()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("dashboard", tmp_path / "study.yaml", "--port", port)
    assert said.startswith(f"error: port {port} on 127.0.0.1: Address already in use\nhint: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frnt"], "error: no such command 'frnt'\nhint: did you mean tuner front?\n"),
        (["x"], "error: no such command 'x'\nhint: write: tuner [OPTIONS] COMMAND [ARGS]...; more with tuner --help\n"),
        (["front"], "error: missing argument 'STUDY'\nhint: write: tuner front [OPTIONS] STUDY; more with tuner front --help\n"),
        (["front", "s.yaml", "--nope"], "error: no such option: --nope\nhint: write: tuner front "),
        (["show", "s.yaml", "one"], "error: invalid value for 'TRIAL': "),
        (["dashboard", "s.yaml", "--port", "99999"], "error: invalid value for '--port': "),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_parsed_says_how_it_is_written(refused, arguments, said):
    assert refused(*arguments).startswith(said)


@pytest.mark.parametrize("package", ["tuner", "workflows"])
def test_no_hint_is_empty(package):
    """That each has one is the type checker's to say: the parameter is required."""
    kinds = {"UserError", "SpecError", "DataError", "ServingError", "StoreError", "ConfigError"}
    seen = 0
    for path in (ROOT / package).rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or getattr(call.func, "id", None) not in kinds:
                continue
            given = [each.value for each in call.keywords if each.arg == "hint"] + call.args[1:]
            assert given, f"{path}:{call.lineno}: without a hint"
            texts = [hint.value for hint in given if isinstance(hint, ast.Constant)]
            assert all(isinstance(text, str) and len(text) > 10 for text in texts), f"{path}:{call.lineno}"  # fmt: skip
            seen += 1
    assert seen > 20


def test_the_script_itself_ends_so(study, tmp_path):
    ended = run_apart("front", study("name: small", "nane: small"))
    assert (ended.returncode, ended.stdout) == (2, "")
    first, last, hint = ended.stderr.splitlines()
    assert first.startswith(f"error: {tmp_path}/study.yaml: name: is missing")
    assert last.startswith(f"{tmp_path}/study.yaml:2: nane: unknown key; known: format_version,")
    assert hint == "hint: did you mean name?"


def test_another_package_of_the_same_name_is_named_and_not_imported(tmp_path):
    other = tmp_path / "workflows"
    other.mkdir()
    (other / "__init__.py").write_text("raise RuntimeError('imported')\n")
    ended = run_apart("doctor", PYTHONPATH=str(tmp_path))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == [
        f"error: the package `workflows` at {other}/__init__.py is not tuner's",
        "hint: llama-index-workflows has the same import name: "
        "install tuner in an environment without it",
    ]


def test_the_package_in_this_environment_is_ours(tmp_path):
    code = "import json, tuner, workflows; print(json.dumps([tuner.__file__, workflows.__file__]))"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    ours, theirs = (Path(file).parent for file in json.loads(ended.stdout))
    assert theirs == ours.with_name("workflows")


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_mistake(keep, found, tmp_path):
    keep(found("direct", {}, search=[(1, 1, 1)] * 4))
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-c", "from tuner.cli import main; main()", "front", tmp_path / "study.yaml", "--json"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )  # fmt: skip
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")


EXPORTED = """\
format_version: 1
config: {workflow: WORKFLOW, model: m}
models: {m: {settings: {model: openai/m, api_base: "http://127.0.0.1:9/v1"}}}
pack: {instruction: Answer.}
"""


@pytest.mark.parametrize("verb", [("ask", "FILE", "What?"), ("serve", "FILE"), ("verify", "FILE")])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format_version: 2\n", "not an exported agent of version 1"),
        (STUDY, "config: is missing, as in no exported agent"),
        ("a: [", "not YAML"),
        ("config: !!python/object/apply:os.getcwd []", "not YAML"),
    ],
)
def test_a_file_that_is_no_export(refused, tmp_path, verb, text, message):
    file = tmp_path / "best.yaml"
    file.write_text(text)
    said = refused(*(file if part == "FILE" else part for part in verb))
    assert f"{file}: " in said
    assert message in said


@pytest.mark.parametrize("verb", [("ask", "FILE", "What?"), ("serve", "FILE", "--port", "0")])
def test_an_export_that_names_code_of_its_own(refused, tmp_path, verb):
    file = tmp_path / "best.yaml"
    file.write_text(EXPORTED.replace("WORKFLOW", "stranger:answer"))
    said = refused(*(file if part == "FILE" else part for part in verb))
    assert "runs code that is not tuner's: the workflow stranger:answer" in said
    assert "--allow-custom" in said


@pytest.mark.parametrize("verb", [("ask", "FILE", "What?"), ("serve", "FILE", "--port", "0")])
def test_an_export_whose_server_is_not_there(refused, tmp_path, verb):
    file = tmp_path / "best.yaml"
    file.write_text(EXPORTED.replace("WORKFLOW", "direct"))
    said = refused(*(file if part == "FILE" else part for part in verb))
    assert "models.m: nothing answers at http://127.0.0.1:9/v1" in said


def test_serving_other_machines_without_a_key(refused, tmp_path):
    said = refused("serve", tmp_path / "best.yaml", "--host", "0.0.0.0")
    assert "no key is asked of them" in said
    assert "hint: name the environment variable that holds one: --api-key-env" in said


def test_an_export_that_claims_too_little_to_be_verified(refused, tmp_path):
    file = tmp_path / "best.yaml"
    file.write_text(EXPORTED.replace("WORKFLOW", "direct"))
    said = refused("verify", file)
    assert "provenance.task: Field required" in said
    assert "export it again" in said
