"""`tuner report`: what it prints, where it writes, and what it refuses."""

import xml.etree.ElementTree as ElementTree

import pytest

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def path(keep, found, tmp_path):
    """A study of nine configs with a quick point and a good one."""
    keep(
        found("direct", {}, search=[(0, 1, 4)] * 4, holdout=[(0, 1, 4), (1, 1, 4)] * 2),
        *(
            found("react", {"max_steps": steps}, search=[(steps > 2, 2 + steps, 10 * steps)] * 4)
            for steps in range(1, 7)
        ),
        found("direct", {"few_shot": 2}, search=[(0, 2, 5)] * 4),
        found("direct", {"few_shot": 2, "demonstrations": "nearest"}, search=[(1, 3, 6)] * 4),
    )
    return tmp_path / "study.yaml"


def test_it_writes_beside_where_the_user_stands_and_says_what_is_next(
    tuner, path, tmp_path, monkeypatch
):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ended = tuner("report", path)
    assert (ended.code, ended.out) == (0, "report.html\n")
    assert (tmp_path / "elsewhere" / "report.html").read_text().startswith("<!doctype html>")
    assert "9 trials" in ended.err
    assert "next: open report.html in a browser; " in ended.err
    assert f"export {path} --rule knee --out best.yaml writes trial 0" in ended.err


@pytest.mark.slow
def test_plots_are_listed_and_are_what_they_are_called(tuner, path, tmp_path):
    out, folder = tmp_path / "r.html", tmp_path / "new" / "plots"
    ended = tuner("report", path, "--out", out, "--plots", folder)
    first, *plots = ended.out.splitlines()
    assert (ended.code, first) == (0, str(out))
    names = ["accuracy-latency_p50_s", "accuracy-energy_wh", "latency_p50_s-energy_wh"]
    names += [f"effects-{name}" for name in ("accuracy", "latency_p50_s", "energy_wh")]
    assert plots == [str(folder / f"{name}.{end}") for name in names for end in ("png", "svg")]
    for name in names:
        assert (folder / f"{name}.png").read_bytes().startswith(PNG)
        text = "".join(ElementTree.parse(folder / f"{name}.svg").getroot().itertext())
        assert "better" in text
    svg = (folder / "accuracy-latency_p50_s.svg").read_text()
    assert "median latency, s (lower is better)" in svg
    assert "knee: trial 0" in svg


@pytest.mark.slow
def test_the_same_study_gives_the_same_plots(tuner, path, tmp_path):
    for name in ("one", "two"):
        tuner("report", path, "--out", tmp_path / "r.html", "--plots", tmp_path / name)
    one, two = (
        {each.name: each.read_bytes() for each in (tmp_path / name).iterdir()}
        for name in ("one", "two")
    )
    assert one == two


def test_a_study_without_a_complete_trial_is_the_users_to_mend(tuner, keep, found, tmp_path):
    keep(found("direct", {}, search=[(0, 1, 4)], failure="no route"))
    ended = tuner("report", tmp_path / "study.yaml", "--out", tmp_path / "r.html")
    assert (ended.code, ended.out) == (2, "")
    assert "error: study kept has no complete trial yet" in ended.err
    assert "hint: tuner run" in ended.err
    assert not (tmp_path / "r.html").exists()


def test_a_study_that_was_never_run_is_the_users_to_mend(tuner, path, tmp_path):
    (tmp_path / "tuner.db").unlink()
    ended = tuner("report", path, "--out", tmp_path / "r.html")
    assert (ended.code, "hint: run it first" in ended.err) == (2, True)


@pytest.mark.parametrize("option", ["--out", "--plots"])
def test_it_says_what_cannot_be_written(tuner, path, tmp_path, option):
    (tmp_path / "file").write_text("")
    ended = tuner("report", path, "--out", tmp_path / "r.html", option, tmp_path / "file" / "below")
    assert ended.code == 2
    assert f"error: {option}: " in ended.err


@pytest.mark.parametrize(
    ("module", "said"), [("jinja2", "needs jinja2"), ("matplotlib", "--plots needs")]
)
def test_it_says_what_to_install(tuner, path, tmp_path, monkeypatch, module, said):
    from importlib import util

    real = util.find_spec
    for place in ("page", "plots"):
        monkeypatch.setattr(
            f"tuner.report.{place}.find_spec", lambda name: None if name == module else real(name)
        )
    ended = tuner("report", path, "--out", tmp_path / "r.html", "--plots", tmp_path / "plots")
    assert ended.code == 2
    assert said in ended.err
    assert "hint: pip install 'tuner[report]'" in ended.err
