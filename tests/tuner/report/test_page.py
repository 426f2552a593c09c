"""The page by itself: within its bytes, asking for nothing, and safe from what models and data sets write."""

import json
import re
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tuner.errors import UserError
from tuner.report import page
from tuner.report import read_report
from tuner.results import open_results
from tuner.spec import load_study
from tuner.study import run_study


class Elements(HTMLParser):
    """Every element of a page with its attributes, and what data it carries."""

    def __init__(self, text):
        super().__init__()
        self.found, self.data, self._inside = [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._inside = dict(attributes).get("id") == "data"

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, text):
        self.data += text if self._inside else ""


def test_nothing_that_was_written_elsewhere_becomes_markup(hostile, write, tmp_path):
    write(hostile, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    tags = {tag for tag, _ in Elements(text).found}
    assert "img" not in tags
    assert "<img" not in text
    assert text.count("</script>") == sum(tag == "script" for tag, _ in Elements(text).found)
    json.loads(Elements(text).data)


def test_it_refers_to_nothing_outside_itself(kinds, write, tmp_path):
    write(kinds, tmp_path / "report.html")
    found = Elements((tmp_path / "report.html").read_text()).found
    for _, attributes in found:
        assert not attributes.keys() & {"src", "srcset", "action", "style", "onclick", "onload"}
        assert attributes.get("href", "#").startswith("#")
    assert "link" not in {tag for tag, _ in found}
    (policy,) = (a["content"] for _, a in found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_it_stands_without_its_script(kinds, write, tmp_path):
    report = write(kinds, tmp_path / "report.html")
    text = re.sub(r"\s+", " ", (tmp_path / "report.html").read_text())
    body = text[: text.index('<script type="application/json"')]
    assert report.recommended.why[1:60] in body
    for name in ("median latency", "Wh/query", "cpu-estimate", "Linux x86_64, 2 CPUs"):
        assert name in body
    assert "2 of 4 questions failed: &lt;b&gt;no&lt;/b&gt; route" in body
    assert "Effects on energy, as a multiple of" in body


def test_every_table_has_a_caption_and_every_head_its_scope(kinds, write, tmp_path):
    write(kinds, tmp_path / "report.html")
    found = Elements((tmp_path / "report.html").read_text()).found
    tags = [tag for tag, _ in found]
    assert tags.count("table") == tags.count("caption") > 5
    assert all("scope" in attributes for tag, attributes in found if tag == "th")
    assert [tags.count(tag) for tag in ("h1", "header", "main", "footer", "nav")] == [1] * 5


@pytest.mark.parametrize("lacking", [100, 2_000])
def test_the_whole_page_has_no_more_bytes_than_it_may(kinds, write, tmp_path, monkeypatch, lacking):
    write(kinds, tmp_path / "whole.html")
    most_bytes = (tmp_path / "whole.html").stat().st_size - lacking
    monkeypatch.setattr(page, "PAGE_BYTES", most_bytes)
    write(kinds, tmp_path / "less.html")
    assert (tmp_path / "less.html").stat().st_size <= most_bytes


@pytest.mark.slow
def test_the_page_of_200_replayed_trials_is_far_below_its_bytes(tmp_path):
    root = Path(__file__).resolve().parents[3]
    (tmp_path / "study.yaml").write_text(
        "format_version: 1\nname: many\n"
        "task: {name: villages, examples: 24, holdout: 0, seed: 7}\n"
        f"search_space: {root}/search_spaces/quickstart.yaml\n"
        "models: {smollm2-135m: {serve: llama.cpp, weights: smollm2-135m-instruct}}\n"
        "objectives: [accuracy, latency_p50_s, energy_wh]\nsampler: {name: grid}\n"
        f"budget: {{trials: 200}}\nexecutor: {{replay: {root}/benchmarks/tables/quickstart.jsonl.gz}}\n"
    )
    study = load_study(tmp_path / "study.yaml")
    run_study(study)
    out = tmp_path / "report.html"
    with closing(open_results(study)) as store:
        report = read_report(study, store)
        blocks = page.write_page(report, store, out)
    assert report.counts["evaluated"] >= 200
    assert len(blocks) == report.counts["evaluated"]
    assert {block.detail for block in blocks} == {"rows"}
    assert out.stat().st_size < 1_000_000
    assert "Replayed." in out.read_text()


def test_a_lone_surrogate_does_not_stop_it():
    assert page.safe_json({"answer": "\ud800</"}) == '{"answer":"\\ud800\\u003c/"}'


def test_its_folder_is_made_where_it_can_be(kinds, write, tmp_path):
    with pytest.raises(UserError, match="--out"):
        write(kinds, tmp_path / "q.jsonl" / "report.html")
    write(kinds, tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").exists()
