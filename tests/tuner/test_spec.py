import json
from pathlib import Path

import pytest

from tuner.errors import SpecError
from tuner.spec import LoadedStudy
from tuner.spec import fingerprint_of
from tuner.spec import load_study

SPACE = "format_version: 1\nname: s\nworkflows: {direct: {few_shot: [0, 2]}, react: {max_steps: [1, 2]}}\n"
STUDY = """\
format_version: 1
name: small
task: {name: jsonl, path: q.jsonl, examples: 4, holdout: 4, seed: 1}
search_space: space.yaml
models:
  m: {model: hosted_vllm/m, api_base: "http://127.0.0.1:9/v1"}
  s: {serve: llama.cpp, weights: smollm2-135m-instruct}
objectives: [accuracy, latency_p50_s]
constraints: {latency_p95_s: "<= 20"}
load: {concurrency: 2}
budget: {trials: 4, wall_clock: 10m}
"""


@pytest.fixture
def load(tmp_path: Path):
    """Loads the study above with texts replaced; `more` is added at its end."""

    def load(*replace: tuple[str, str], more: str = "", space: str = SPACE) -> LoadedStudy:
        text = STUDY
        for old, new in replace:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        (tmp_path / "space.yaml").write_text(space)
        rows = [json.dumps({"question": f"Question {n}?", "answer": "yes"}) for n in range(9)]
        (tmp_path / "q.jsonl").write_text("\n".join(rows))
        path = tmp_path / "study.yaml"
        path.write_text(text + more)
        return load_study(path)

    return load


def test_a_study_is_loaded_with_all_that_it_points_to(load, tmp_path):
    study = load()
    assert dict(study.models) == {"m": {}, "s": {}}
    assert tuple(study.variants) == ("m", "s")
    assert study.space.size(study.models) == 8
    assert study.task_options.examples == 4
    assert study.storage_url == f"sqlite:///{tmp_path}/tuner.db"
    assert study.measured() == ("accuracy", "latency_p50_s", "latency_p95_s")
    assert study.spec.sampler.name == "pooled"
    assert [len(study.load_task().examples(split)) for split in ("search", "holdout")] == [4, 4]


def test_the_spec_is_plain_json(load):
    content = load().spec.model_dump(mode="json")
    assert json.loads(json.dumps(content, allow_nan=False)) == content


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1.5h", 5400), ("' 2 h '", 7200), ("45", 45), ("0.5", 0.5)],
)
def test_durations(load, text, seconds):
    assert load(("10m", text)).spec.budget.wall_clock == seconds


@pytest.mark.parametrize("text", ["10", "10d", "m", "-3m", "4 minutes", "1h30m", "1e3"])
def test_what_is_no_duration_is_refused(load, text):
    with pytest.raises(SpecError, match=r":11: budget.wall_clock: .* is no duration; write 90s"):
        load(("10m", f"'{text}'"))


M, S = '{model: hosted_vllm/m, api_base: "http://127.0.0.1:9/v1"}', "{serve: llama.cpp, weights: smollm2-135m-instruct}"  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format_version: 1", "format_version: 2", "1: format_version: input should be 1, not 2"),
        ("name: small", "name: a/b", "2: name: string should match pattern"),
        ("name: small", "name: ''", "2: name: string should have at least 1 character"),
        ("name: small", "nam: small", "2: nam: unknown key; known: format_version, name, task, search_space, models,"),
        ("{name: jsonl, path: q.jsonl, examples: 4, holdout: 4, seed: 1}", "villages", "3: task: input should be an object, not 'villages'"),
        ("name: jsonl", "nome: villages", "3: task: has no name"),
        ("name: jsonl", "name: vilages", "3: task.name: unknown task 'vilages'; known: villages, hotpotqa, musique,"),
        ("name: jsonl", "name: 3", "3: task.name: unknown task '3'"),
        ("examples: 4", "examples: 0", "3: task.examples: input should be greater than or equal to 1, not 0"),
        ("holdout: 4", "hold_out: 4", "3: task.hold_out: unknown key; known: examples, holdout, seed"),
        ("path: q.jsonl, ", "", "3: task.path: is missing"),
        ("search_space: space.yaml", "search_space: spaces.yaml", "4: search_space: there is no file "),
        ("search_space: space.yaml", "search_space: .", "4: search_space: there is no file "),
        (M, "http://gpu1:8000", "6: models.m: input should be an object, not 'http://gpu1:8000'"),
        ("model: hosted_vllm/m", "modle: hosted_vllm/m", "6: models.m.modle: unknown key; known: model, api_base,"),
        ("m: {model: hosted_vllm/m, ", "m: {", "6: models.m.model: is missing"),
        (S, "{serve: llama.cpp}", "7: models.s.weights: is missing"),
        (S, "{serve: ollama, weights: x}", "7: models.s.serve: unknown engine 'ollama'; known: llama.cpp, vllm, sglang"),
        (S, "{serve: vllm, weights: x}", "7: models.s.model: is missing"),
        (S, "{weights: x}", "7: models.s.serve: is missing"),
        (S, "{serve: llama.cpp, weights: x, api_base: y}", "7: models.s.api_base: unknown key; known: serve, port, start_timeout_s, timeout_s, max_retries, meter, weights, threads, slots, context, prefix_cache, kv_cache_type"),
        (S, "{serve: vllm, model: a/b, max_running_requests: 8}", "7: models.s.max_running_requests: unknown key; known: serve, port, start_timeout_s, timeout_s, max_retries, meter, model, command,"),
        (S, "{serve: llama.cpp, weights: x, prefix_cache: [true, yes]}", "7: models.s.prefix_cache: names a value twice: True, True"),
        (S, "{serve: llama.cpp, weights: x, slots: [1, two]}", "7: models.s.slots.1: input should be a valid integer, not 'two'"),
        (S, "{serve: llama.cpp, weights: x, slots: two}", "7: models.s.slots: input should be a valid integer, not 'two'"),
        (S, "{serve: llama.cpp, weights: x, kv_cache_type: [f16, q9]}", "7: models.s.kv_cache_type.1: input should be 'f32', 'f16',"),
        (S, "{serve: vllm, model: a/b, arguments: [--port, '3']}", "7: models.s.arguments: --port is not for `arguments`: `port` sets it"),
        (S, "{serve: vllm, model: a/b, environment: {HF_TOKEN: x}}", "7: models.s.environment: HF_TOKEN looks like a secret"),
        (S, "{serve: llama.cpp, weights: x, meter: nvml}", "7: models.s.meter: input should be none or one of {nvml: …}, {rapl: …},"),
        (S, "{serve: llama.cpp, weights: x, meter: {nvml: [a, a]}}", "7: models.s.meter.nvml: names a GPU twice"),
        (S, "{serve: llama.cpp, weights: x, meter: {cpu_estimate: {watts: 3}}}", "7: models.s.meter.cpu_estimate.watts: unknown key; known: watts_per_core"),
        ("[accuracy, latency_p50_s]", "[accuracy]", "8: objectives: tuple should have at least 2 items after validation, not 1"),
        ("[accuracy, latency_p50_s]", "[accuracy, latency_p50_s, latency_p95_s, latency_mean_s, energy_wh, cost_usd]", "8: objectives: tuple should have at most 5 items after validation, not 6"),
        ("[accuracy, latency_p50_s]", "[accuracy, speed]", "8: objectives: unknown objective 'speed'; known: accuracy, latency_mean_s,"),
        ("[accuracy, latency_p50_s]", "[accuracy, accuracy]", "8: objectives: names an objective twice: accuracy, accuracy"),
        ("[accuracy, latency_p50_s]", "accuracy", "8: objectives: input should be a valid array, not 'accuracy'"),
        ("<= 20", "= 20", "9: constraints: latency_p95_s: '= 20' is no bound; write <= 20 or >= 0.5"),
        ("<= 20", "< 20", "9: constraints: latency_p95_s: '< 20' is no bound"),
        ("<= 20", "<= fast", "9: constraints: latency_p95_s: '<= fast' is no bound"),
        ("<= 20", "<= .nan", "9: constraints: latency_p95_s: '<= .nan' is no bound"),
        ("<= 20", "<= [20]", "9: constraints: latency_p95_s: '<= [20]' is no bound"),
        ('"<= 20"', "20", "9: constraints.latency_p95_s: input should be a valid string, not 20"),
        ("{latency_p95_s:", "{latency_p99_s:", "9: constraints: unknown objective 'latency_p99_s'; known: accuracy,"),
        ("concurrency: 2", "concurrency: 0", "10: load.concurrency: input should be greater than or equal to 1, not 0"),
        ("concurrency: 2", "rate: 0", "10: load.rate: input should be greater than 0, not 0"),
        ("concurrency: 2", "rate: 2, concurrency: 2", "10: load: is closed (concurrency) or open (rate), not both"),
        ("concurrency: 2", "warm_up: -1", "10: load.warm_up: input should be greater than or equal to 0, not -1"),
        ("concurrency: 2", "qps: 2", "10: load.qps: unknown key; known: concurrency, rate, warm_up, cool_down"),
        ("trials: 4", "trials: 0", "11: budget.trials: input should be greater than or equal to 1, not 0"),
        ("trials: 4", "trials: many", "11: budget.trials: input should be a valid integer, not 'many'"),
        ("trials: 4, ", "", "11: budget.trials: is missing"),
        ("10m", ".inf", "11: budget.wall_clock: input should be a finite number, not inf"),
        ("10m", "0", "11: budget.wall_clock: input should be greater than 0, not 0"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(load, tmp_path, old, new, message):
    with pytest.raises(SpecError) as caught:
        load((old, new))
    assert f"{tmp_path}/study.yaml:{message}" in str(caught.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "sampler: {name: cma}",
            "sampler.name: unknown sampler 'cma'; known: pooled, tpe, nsga2, ",
        ),
        ("sampler: {seed: -1}", "sampler.seed: input should be greater than or equal to 0, not -1"),
        ("sampler: tpe", "sampler: input should be an object, not 'tpe'"),
        ("cache: cold", "cache: input should be 'isolated' or 'shared', not 'cold'"),
        ("max_failure_rate: 1", "max_failure_rate: input should be less than 1, not 1"),
        ("storage: tuner.db", "storage: is no database URL"),
        (
            "storage: postgresql+psycopg://me:sesame@host/db",
            "storage: holds a password, which belongs in no file",
        ),
        (
            "storage: postgresql+psycopg://me@host/db?password=sesame",
            "storage: holds a password, which belongs in no file",
        ),
        ("storage: 'sqlite://'", "storage: a study must outlive its process"),
        ("storage: 'sqlite:///:memory:'", "storage: a study must outlive its process"),
        ("storage: 'sqlite:///none/tuner.db'", "storage: there is no folder "),
        ("storage: 'sqllite:///tuner.db'", "storage: no database is called 'sqllite'"),
        ("storage: 'oracle://host/db'", "storage: oracle needs a driver: No module named"),
    ],
)
def test_a_mistake_in_an_optional_key_too(load, tmp_path, more, message):
    with pytest.raises(SpecError) as caught:
        load(more=more)
    assert str(caught.value).startswith(f"{tmp_path}/study.yaml:12: {message}")
    assert len(str(caught.value).split("\n")) == 1


def test_a_mistake_in_the_space_names_the_space_file(load, tmp_path):
    with pytest.raises(
        SpecError, match=rf"{tmp_path}/space.yaml:3: workflows.direct.few_shot: 9 is"
    ):
        load(space=SPACE.replace("[0, 2]", "[0, 9]"))


@pytest.mark.parametrize("lacking", ["name", "search_space", "objectives"])
def test_a_key_that_is_missing_is_named(load, lacking):
    line = next(line for line in STUDY.splitlines(keepends=True) if line.startswith(lacking))
    with pytest.raises(SpecError, match=rf"study.yaml: {lacking}: is missing"):
        load((line, ""))


def test_paths_start_from_the_study_file(load, tmp_path, monkeypatch):
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "other.yaml").write_text(SPACE)
    monkeypatch.chdir("/")
    study = load(("space.yaml", "deeper/other.yaml"), more="storage: sqlite:///deeper/a.db\n")
    assert study.storage_url == f"sqlite:///{tmp_path}/deeper/a.db"
    monkeypatch.chdir(tmp_path)
    assert load_study("study.yaml").storage_url == study.storage_url
    assert load(more="storage: sqlite:////tmp/a.db").storage_url == "sqlite:////tmp/a.db"


def changed(study: LoadedStudy, base: LoadedStudy) -> set[str]:
    one, other = (each.fingerprint(each.load_task()) for each in (study, base))
    assert one.keys() == other.keys()
    return {part for part in one if one[part] != other[part]}


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("trials: 4", "trials: 9", set()),
        ("wall_clock: 10m", "wall_clock: 1h", set()),
        ("name: small", "name: other", set()),
        ("load: ", "sampler: {name: random, seed: 8}\nload: ", set()),
        ("load: ", "max_failure_rate: 0.1\nload: ", set()),
        ("load: ", "storage: sqlite:///b.db\nload: ", set()),
        ("smollm2-135m-instruct}", "smollm2-135m-instruct, port: 4711, timeout_s: 9.0, max_retries: 0}", set()),
        ("9/v1", '9/v1", timeout_s: 3, api_key_env: "KEY', set()),
        ("examples: 4", "examples: 5", {"task"}),
        ("holdout: 4", "holdout: 5", {"task"}),
        ("seed: 1", "seed: 2", {"task"}),
        ("seed: 1", "seed: 1, score: f1", {"scoring"}),
        ("9/v1", "10/v1", {"models"}),
        ("  m: {model", "  n: {model", {"models"}),
        ("hosted_vllm/m", "hosted_vllm/n", {"models"}),
        ("smollm2-135m-instruct}", "smollm2-135m-instruct, threads: 2}", {"models"}),
        ("smollm2-135m-instruct}", "smollm2-135m-instruct, threads: [1, 2]}", {"models"}),
        ("smollm2-135m-instruct}", "smollm2-135m-instruct, threads: [1]}", set()),
        ("smollm2-135m-instruct}", "smollm2-135m-instruct, start_timeout_s: 9}", set()),
        ("smollm2-135m-instruct}", "smollm2-135m-instruct, meter: none}", {"models"}),
        ("[accuracy, latency_p50_s]", "[latency_p50_s, accuracy]", {"objectives"}),
        ("[accuracy, latency_p50_s]", "[accuracy, tokens_total]", {"objectives"}),
        ("<= 20", "<= 10", {"objectives"}),
        ("concurrency: 2", "concurrency: 1", {"load"}),
        ("concurrency: 2", "concurrency: 2, warm_up: 0", set()),
        ("concurrency: 2", "concurrency: 2, warm_up: 4", {"load"}),
        ("concurrency: 2", "rate: 2", {"load"}),
        ("load: ", "cache: shared\nload: ", {"load"}),
    ],
)  # fmt: skip
def test_the_fingerprint_changes_in_the_part_that_matters(load, old, new, parts):
    assert changed(load((old, new)), load()) == parts


def test_a_closed_load_keeps_the_fingerprint_that_it_had_before_there_were_others(load):
    kept = fingerprint_of([{"concurrency": 2}, "isolated"])
    assert load().fingerprint()["load"] == kept == "0a635e53322a24f5"
    alone = fingerprint_of([{"concurrency": 1}, "isolated"])
    for text in ("load: {concurrency: 1}\n", "load: {}\n", ""):
        study = load(("load: {concurrency: 2}\n", text))
        assert study.fingerprint()["load"] == alone
        assert study.spec.load.concurrency == 1


def test_an_open_load_has_a_rate_and_nobody_at_a_time(load):
    given = load(("concurrency: 2", "rate: 2, warm_up: 8, cool_down: 4")).spec.load
    assert (given.rate, given.concurrency, given.warm_up, given.cool_down) == (2.0, None, 8, 4)


def test_the_fingerprint_changes_with_the_space(load):
    assert changed(load(space=SPACE.replace("[0, 2]", "[0, 3]")), load()) == {"search space"}
    assert changed(load(space=SPACE.replace("name: s", "name: t")), load()) == set()


def test_without_the_questions_the_fingerprint_has_all_other_parts(load):
    study = load()
    whole = study.fingerprint(study.load_task())
    assert study.fingerprint() == {part: whole[part] for part in whole if part != "task"}


def space_with(workflow):
    return f"format_version: 1\nname: s\nworkflows:\n  {workflow}\n"


@pytest.mark.parametrize(
    ("workflow", "message"),
    [
        ("reflexion: {judge_model: [m, x]}", "workflows.reflexion.judge_model: 'x' is no model of the study; known: actor, m, s"),
        ("react: {draft_model: big}", "workflows.react.draft_model: 'big' is no model of the study"),
        ("cascade: {costly: reflexion, costly.judge_model: big}", "workflows.cascade.costly.judge_model: 'big' is no model"),
    ],
)  # fmt: skip
def test_a_role_goes_to_a_model_of_the_study(load, tmp_path, workflow, message):
    with pytest.raises(SpecError) as caught:
        load(space=space_with(workflow))
    assert str(caught.value).startswith(f"{tmp_path}/space.yaml:4: {message}")
    load(space=space_with("reflexion: {judge_model: [m, actor, s]}"))


def test_no_model_is_called_actor(load):
    with pytest.raises(SpecError, match="models: 'actor' stands for the config's own model"):
        load(("  s: {", "  actor: {"))


@pytest.mark.parametrize(
    ("workflow", "reason"),
    [
        ("cot: {}", "does not suit the task shop: the task's answer is what a tool gives that ends the run, and it gives: a line of text, a program"),
        ("self_consistency: {}", "does not suit the task shop: "),
        ("cascade: {cheap: [react, direct], costly: react}", "does not suit the task shop: cheap: direct: the task's answer is"),
    ],
)  # fmt: skip
def test_a_workflow_that_does_not_suit_the_task_is_refused_with_the_reason(
    load, tmp_path, workflow, reason
):
    shop = ("{name: jsonl, path: q.jsonl,", "{name: shop,")
    study = load(shop, space=space_with(workflow))
    with pytest.raises(SpecError) as caught:
        study.load_task()
    name = workflow.partition(":")[0]
    assert str(caught.value).startswith(f"{tmp_path}/space.yaml:4: workflows.{name}: {reason}")
    assert caught.value.hint == "leave the workflow out, or choose another task"
    load(shop, space=space_with("react: {}")).load_task()


def test_no_model_has_the_sign_of_a_variant_in_its_name(load):
    with pytest.raises(SpecError, match="'s@2': @ stands between a model's name and how it is"):
        load(("  s: {", "  s@2: {"))


CHOICES = (S, "{serve: llama.cpp, weights: x.gguf, slots: [1, 2], prefix_cache: [true, false]}")


def test_a_model_with_choices_has_variants(load):
    study = load(CHOICES)
    assert {name: list(knobs) for name, knobs in study.models.items()} == {
        "m": [],
        "s": ["slots", "prefix_cache"],
    }
    assert study.space.size(study.models) == 4 * (1 + 4)
    names = {config.model for config in study.space.configs(study.models)}
    assert (
        names
        == set(study.variants)
        == {
            "m",
            "s@slots=1,prefix_cache=true",
            "s@slots=1,prefix_cache=false",
            "s@slots=2,prefix_cache=true",
            "s@slots=2,prefix_cache=false",
        }
    )
    config = next(c for c in study.space.configs(study.models) if "slots=2" in c.model)
    assert study.label(config) == "direct model=s slots=2 prefix_cache=true few_shot=0"
    variant = study.variants["s@slots=2,prefix_cache=false"]
    assert (variant.slots, variant.prefix_cache, variant.choices()) == (2, False, {})


@pytest.mark.parametrize(
    "workflow", ["reflexion: {judge_model: [m, s]}", "react: {draft_model: s}"]
)
def test_no_role_goes_to_a_model_with_choices(load, tmp_path, workflow):
    with pytest.raises(SpecError) as caught:
        load(CHOICES, space=space_with(workflow))
    assert str(caught.value).startswith(f"{tmp_path}/space.yaml:4: workflows.")
    assert "'s' has choices of its own (slots, prefix_cache), so no role can name it" in str(
        caught.value
    )
    assert "give the role to actor, or to a model with a single value" in caught.value.hint
    load(CHOICES, space=space_with(workflow.replace("s]", "actor]").replace(" s}", " m}")))


@pytest.mark.parametrize(
    ("knobs", "has"),
    [
        ("temperature: {low: 0.0, high: 1.0}", "a continuum of configs"),
        ("temperature: {low: 0.0, high: 2.0, step: 0.0001}, few_shot: [0, 1, 2, 3, 4]", "200,010 configs"),
    ],
)  # fmt: skip
def test_a_grid_is_refused_where_it_never_ends(load, knobs, has):
    space = f"format_version: 1\nname: s\nworkflows: {{direct: {{{knobs}}}}}\n"
    assert load(space=space).spec.sampler.name != "grid"
    with pytest.raises(SpecError, match=rf":12: sampler.name: grid tries every config, .* {has}; 100,000"):  # fmt: skip
        load(more="sampler: {name: grid}\n", space=space)


def test_a_budget_may_bound_what_is_paid_for(load):
    bounds = "gpu_hours: 2, energy_wh: 1.5, cost_usd: 10, tokens: 1000000, plateau: 10"
    budget = load(("wall_clock: 10m", bounds)).spec.budget
    assert (budget.gpu_hours, budget.energy_wh, budget.cost_usd) == (2.0, 1.5, 10.0)
    assert (budget.tokens, budget.plateau, budget.wall_clock) == (1000000, 10, None)


@pytest.mark.parametrize("name", ["gpu_hours", "energy_wh", "cost_usd", "tokens", "plateau"])
def test_a_budget_of_nothing_is_refused(load, name):
    with pytest.raises(SpecError, match=rf":11: budget.{name}: input should be greater than .*0"):
        load(("wall_clock: 10m", f"{name}: 0"))
