import os

import pytest
import yaml

import workflows
from tuner.errors import StoreError
from tuner.errors import UserError
from tuner.export import export
from tuner.export import export_all
from tuner.results import Front
from tuner.results import open_results
from tuner.rules import Rule
from tuner.spec import load_study
from workflows.config import load_agent_file

RULES = tuple(
    map(
        Rule.parse,
        (
            "knee",
            "max-accuracy",
            "min-energy",
            "min-latency",
            "cheapest-within:0.02",
            "slo:latency_p50_s<=9",
            "weights:accuracy=2,energy_wh=1",
        ),
    )
)
KNEE = RULES[0]


def read(study):
    store = open_results(study)
    front = Front.read(study, store)
    store.close()
    return front


def rows(right, seconds, joules):
    return [(score, seconds, joules) for score in (1,) * right + (0,) * (4 - right)]


@pytest.fixture
def trials(found):
    """Quick and poor, balanced, frugal, and best but slow."""
    return (
        found("direct", {}, search=rows(0, 1, 40)),
        found("react", {"max_steps": 1}, search=rows(3, 2, 12)),
        found("react", {"max_steps": 2}, search=rows(1, 4, 10)),
        found("react", {"max_steps": 3}, search=rows(4, 9, 50)),
    )


def test_what_is_recommended_was_confirmed_and_is_not_dominated_there(keep, found, tmp_path):
    lucky = found("direct", {}, search=rows(4, 1, 1), holdout=rows(1, 1, 2))
    steady = found("react", {"max_steps": 1}, search=rows(3, 0.9, 1), holdout=rows(3, 0.9, 1))
    unseen = found("react", {"max_steps": 2}, search=rows(4, 1, 0.9))
    study = keep(lucky, steady, unseen)
    for rule in RULES:
        choice = export(study, open_results(study), rule=rule, out=tmp_path / "best.yaml")
        assert (choice.point.trial.number, choice.point.split) == (1, "holdout")


def test_an_export_runs_by_workflows_alone(keep, trials, tmp_path):
    study = keep(*trials)
    out = tmp_path / "out" / "best.yaml"
    out.parent.mkdir()
    point = export(study, open_results(study), rule=KNEE, out=out).point
    assert point.trial.number == 1
    file = load_agent_file(out)
    task = study.load_task()
    assert file.config == point.trial.config
    assert file.pack.documents == task.pack.documents
    assert file.pack.instruction == task.pack.instruction
    assert file.models["m"].settings.api_base == "http://127.0.0.1:9/v1"
    assert file.models["m"].serve is None


async def test_an_exported_agent_answers_with_its_tools(keep, found, tmp_path):
    study = keep(found("react", {"max_steps": 2}, search=rows(4, 1, 1)))
    export(study, open_results(study), rule=KNEE, out=tmp_path / "best.yaml")
    file = load_agent_file(tmp_path / "best.yaml")
    page = file.pack.documents[0]
    llm = workflows.ScriptedLLM(
        [f"I look.\nAction 1: search[{page.title}]", "I know.\nAction 2: finish[Elm]"]
    )
    agent = workflows.build(file.config, llms={"m": llm}, pack=file.pack)
    outcome = await agent.run("Where?")
    assert outcome.answer == "Elm"
    assert [span.name for span in outcome.spans if span.kind == "tool"] == ["search"]
    assert page.sentences[0] in llm.requests[1].prompt


def test_an_export_says_where_it_comes_from(keep, found, tmp_path):
    first = found("direct", {}, search=rows(3, 1, 3.6), holdout=rows(2, 1, 7.2))
    second = found("react", {"max_steps": 1}, search=rows(4, 2, 1), holdout=rows(4, 2, 1))
    study, rule = keep(first, second), Rule.parse("slo:latency_p50_s<=1")
    choice = export(study, open_results(study), rule=rule, out=tmp_path / "best.yaml")
    told = load_agent_file(tmp_path / "best.yaml").provenance
    assert (told["study"], told["trial"], told["rule"]) == ("kept", 0, "slo:latency_p50_s<=1")
    assert (told["why"], told["runner_up"]) == (choice.why, None)
    assert told["task"]["name"] == "jsonl"
    assert told["task"]["fingerprint"] == study.load_task().fingerprint()
    metered = {"source": "cpu-estimate", "scope": "server process 1", "meter": None}
    assert told["energy"]["m"] == metered
    assert told["measured"]["search"]["values"] == pytest.approx(
        {"accuracy": 0.75, "latency_p50_s": 1.0, "energy_wh": 0.001}
    )
    assert told["measured"]["holdout"]["values"]["energy_wh"] == pytest.approx(0.002)
    assert told["measured"]["holdout"]["n"] == 4
    assert told["measured"]["holdout"]["sources"] == {"energy": "cpu-estimate"}


def test_what_was_only_near_the_front_has_its_figures_of_the_search_too(keep, found, tmp_path):
    """It was right about one question that the best was wrong about, so it may be on the front."""
    best = found("direct", {}, search=rows(3, 1, 1), holdout=rows(1, 1, 1))
    near = [(0.0, 2, 2), (0.0, 2, 2), (1.0, 2, 2), (1.0, 2, 2)]
    study = keep(best, found("react", {"max_steps": 1}, search=near, holdout=rows(4, 2, 2)))
    rule = Rule.parse("max-accuracy")
    assert export(study, open_results(study), rule=rule, out=tmp_path / "best.yaml").point.trial.number == 1  # fmt: skip
    measured = load_agent_file(tmp_path / "best.yaml").provenance["measured"]
    assert measured["search"]["values"]["accuracy"] == 0.5
    assert measured["holdout"]["values"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("params", "shown"),
    [
        ({"few_shot": 0}, 0),
        ({"few_shot": 2}, 2),
        ({"few_shot": 2, "demonstrations": "nearest"}, None),
    ],
)
def test_demonstrations_that_the_config_cannot_show_are_left_out(
    keep, found, tmp_path, params, shown
):
    study = keep(found("direct", params, search=rows(4, 1, 1)))
    export(study, open_results(study), rule=KNEE, out=tmp_path / "best.yaml")
    pool = study.load_task().pack.demonstrations
    assert len(pool) > 2
    assert load_agent_file(tmp_path / "best.yaml").pack.demonstrations == pool[:shown]


def test_the_address_of_a_server_that_the_study_started_is_left_out(keep, found, tmp_path):
    started = {"engine": "llama.cpp", "weights": "smollm2-135m-instruct"}
    settings = {"model": "hosted_vllm/m", "api_base": "http://127.0.0.1:40123/v1"}
    energy = {"source": "x", "scope": "y"}
    model = {"settings": settings, "serve": started, "cache": "isolated", "energy": energy}
    provenance = {"versions": {}, "python": "3", "machine": "m", "models": {"m": model}}
    study = keep(found("direct", {}, search=rows(4, 1, 1)), provenance=provenance)
    export(study, open_results(study), rule=KNEE, out=tmp_path / "best.yaml")
    assert "40123" not in (tmp_path / "best.yaml").read_text()
    file = load_agent_file(tmp_path / "best.yaml")
    assert file.models["m"].serve == started
    assert file.models["m"].settings.api_base is None
    with pytest.raises(workflows.ConfigError, match="a server that the tuner started"):
        workflows.load(tmp_path / "best.yaml")


def test_no_secret_gets_into_the_file(keep, trials, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "sk-do-not-tell")
    study = keep(*trials)
    export(study, open_results(study), rule=KNEE, out=tmp_path / "best.yaml")
    written = (tmp_path / "best.yaml").read_text()
    assert yaml.safe_load(written)["models"]["m"]["settings"]["api_key_env"] == "SECRET_KEY"
    assert "sk-do-not-tell" not in written
    assert "sqlite:" not in written
    assert str(tmp_path) not in written


def test_what_is_written_is_the_pack_that_was_measured(keep, trials, tmp_path):
    keep(*trials)
    file = tmp_path / "study.yaml"
    file.write_text(file.read_text().replace("seed: 1", "seed: 2"))
    study = load_study(file)
    with pytest.raises(StoreError, match="with another task"):
        export(study, open_results(study), rule=KNEE, out=tmp_path / "best.yaml")
    assert not (tmp_path / "best.yaml").exists()


@pytest.mark.skipif(os.name == "nt", reason="folders and files differ there")
@pytest.mark.parametrize("out", ["", "none/best.yaml"])
def test_a_place_that_cannot_be_written_is_refused(keep, trials, tmp_path, out):
    study = keep(*trials)
    with pytest.raises(UserError, match=r"--out: .* cannot be written"):
        export(study, open_results(study), rule=KNEE, out=tmp_path / out)


@pytest.fixture
def told(found):
    """The same workflow, told when it is right: it looks best in everything."""
    return found("reflexion", {"feedback": "oracle"}, search=rows(4, 0.1, 0.1))


def test_what_was_told_when_it_was_right_is_shown_and_never_exported(keep, trials, told, tmp_path):
    study = keep(*trials, told)
    assert [point.trial.number for point in read(study).search] == [4]
    for rule in RULES:
        point = export(study, open_results(study), rule=rule, out=tmp_path / "best.yaml").point
        assert point.trial.number != 4
        assert not load_agent_file(tmp_path / "best.yaml").config.oracle


def test_a_study_of_nothing_else_cannot_be_exported(keep, told, tmp_path):
    study = keep(told)
    with pytest.raises(UserError, match=r"told when its answer was right \(feedback: oracle\)"):
        export(study, open_results(study), rule=KNEE, out=tmp_path / "best.yaml")
    assert not (tmp_path / "best.yaml").exists()


def test_a_config_with_roles_is_exported_with_all_its_models(keep, found, tmp_path):
    provenance = {
        "versions": {},
        "python": "3",
        "machine": "m",
        "models": {
            name: {
                "settings": {"model": f"hosted_vllm/{name}", "api_base": "http://127.0.0.1:9/v1"},
                "serve": None,
                "cache": "shared",
                "energy": {"source": "nvml-counter", "scope": f"GPU-{name}"},
            }
            for name in ("m", "n")
        },
    }
    study = keep(
        found("reflexion", {"judge_model": "n"}, search=rows(4, 1, 1)), provenance=provenance
    )
    export(study, open_results(study), rule=KNEE, out=tmp_path / "best.yaml")
    file = load_agent_file(tmp_path / "best.yaml")
    assert sorted(file.models) == ["m", "n"]
    assert file.models["n"].settings.model == "hosted_vllm/n"
    assert file.provenance["energy"]["n"]["scope"] == "GPU-n"
    workflows.load(tmp_path / "best.yaml")


def test_an_export_says_what_served_and_measured_it_and_each_answer(keep, found, tmp_path):
    started = {"engine": "llama.cpp", "engine_version": "xllamacpp 1", "weights": "w.gguf", "slots": 1}  # fmt: skip
    model = {"settings": {"model": "hosted_vllm/m"}, "serve": started, "cache": "cleared", "energy": {"source": "cpu-estimate", "scope": "s"}}  # fmt: skip
    provenance = {"versions": {"tuner": "0.1.0"}, "python": "3", "machine": "2 × CPU", "models": {"m": model}}  # fmt: skip
    study = keep(found("direct", {}, search=rows(3, 1, 3.6), holdout=rows(2, 1.23456789, 2)), provenance=provenance)  # fmt: skip
    export(study, open_results(study), rule=KNEE, out=tmp_path / "best.yaml")
    written = (tmp_path / "best.yaml").read_text()
    told = load_agent_file(tmp_path / "best.yaml").provenance
    assert told["servers"]["m"] == {
        "engine": "llama.cpp",
        "engine_version": "xllamacpp 1",
        "started_by_tuner": True,
        "flags": {"weights": "w.gguf", "slots": 1},
    }
    assert told["hardware"] == "2 × CPU"
    assert told["questions"] == {"search": 4, "holdout": 4}
    assert told["seeds"] == {"task": 1, "sampler": 0}
    assert told["task_files"] == {"folder": "."}
    search = told["measured"]["search"]["answers"]
    ids = [example.id for example in study.load_task().search]
    assert sorted(search["question"]) == sorted(ids)
    assert sorted(search["score"]) == [0.0, 1.0, 1.0, 1.0]
    assert search["energy_j"] == [3.6] * 4
    assert "cost_usd" not in search  # was not measured once
    assert set(told["measured"]["holdout"]["answers"]["latency_s"]) == {1.23457}
    assert "latency_s: [1.23457, 1.23457, 1.23457, 1.23457]\n" in written


def test_an_amount_that_was_not_measured_is_missing_and_not_0(keep, found, tmp_path):
    holdout = [(1, 1.23456789, 2), (1, 1, None), (0, 1, 2), (0, 1, 2)]
    study = keep(found("direct", {}, search=rows(3, 1, 3.6), holdout=holdout))
    export(study, open_results(study), rule=KNEE, out=tmp_path / "best.yaml")
    measured = load_agent_file(tmp_path / "best.yaml").provenance["measured"]
    assert measured.keys() == {"search"}  # a pass that lacks an amount confirms nothing


def test_every_point_of_the_front_is_written_and_what_is_recommended_is_said(
    keep, trials, found, tmp_path
):
    study = keep(*trials)
    exported = export_all(study, open_results(study), folder=tmp_path / "front")
    names = [each.path.name for each in exported]
    front = read(study).search
    assert names == [f"trial-{point.trial.number}.yaml" for point in front]
    assert {file.name for file in (tmp_path / "front").iterdir()} == {
        *names,
        "pack.documents.jsonl",
    }
    by = {each.point.trial.number: set(each.recommended_by) for each in exported}
    assert by == {0: {"min-latency"}, 1: {"knee"}, 2: {"min-energy"}, 3: {"max-accuracy"}}
    for each in exported:
        file = load_agent_file(each.path)
        assert file.config == each.point.trial.config
        assert file.pack.documents
        assert file.provenance["rule"] is None
        assert file.provenance["recommended_by"] == each.recommended_by
        assert file.provenance["task_files"] == {"folder": ".."}


def test_of_a_confirmed_front_those_that_hold_are_written(keep, found, tmp_path):
    lucky = found("direct", {}, search=rows(4, 1, 1), holdout=rows(1, 1, 2))
    steady = found("react", {"max_steps": 1}, search=rows(3, 0.9, 1), holdout=rows(3, 0.9, 1))
    study = keep(lucky, steady)
    (only,) = export_all(study, open_results(study), folder=tmp_path)
    assert (only.point.trial.number, only.point.split) == (1, "holdout")
    assert set(only.recommended_by) == {"knee", "max-accuracy", "min-energy", "min-latency"}


def test_a_folder_that_cannot_be_made_is_refused(keep, trials, tmp_path):
    study = keep(*trials)
    (tmp_path / "front").write_text("a file")
    with pytest.raises(UserError, match="cannot be made a folder"):
        export_all(study, open_results(study), folder=tmp_path / "front")


def test_an_address_with_a_password_is_refused(keep, found, tmp_path):
    settings = {"model": "hosted_vllm/m", "api_base": "http://me:sk-do-not-tell@host/v1"}
    model = {"settings": settings, "serve": None, "cache": "shared", "energy": {"source": "x", "scope": "y"}}  # fmt: skip
    provenance = {"versions": {}, "python": "3", "machine": "m", "models": {"m": model}}
    study = keep(found("direct", {}, search=rows(4, 1, 1)), provenance=provenance)
    with pytest.raises(UserError, match="holds a password") as refused:
        export(study, open_results(study), rule=KNEE, out=tmp_path / "best.yaml")
    assert "sk-do-not-tell" not in f"{refused.value}{refused.value.hint}"
    assert not (tmp_path / "best.yaml").exists()
