"""What a profile is written as: JSON, CSV, and a page that needs nothing from the network."""

import csv
import json
import re
from html.parser import HTMLParser

import pytest

from tuner.measure import MeterSpec
from tuner.measure import make_meter
from tuner.profile import text
from tuner.profile.beside import compare
from tuner.profile.estimate import Value
from tuner.profile.figures import FIGURES
from tuner.profile.files import CSV_COLUMNS
from tuner.profile.files import content
from tuner.profile.files import recording
from tuner.profile.files import write
from tuner.profile.page import write_page
from tuner.profile.table import Column


@pytest.fixture(scope="module")
def profile(profiled):
    return profiled(at_rates=(0.1, 0.2))


@pytest.fixture(scope="module")
def comparison(profile):
    return compare(profile, "kim2025")


def test_the_json_has_every_figure_and_no_number_that_is_none(profile, comparison):
    document = json.loads(json.dumps(content(profile, comparison), allow_nan=False))
    assert list(document["figures"]) == list(FIGURES)
    assert document["beside"]["figures"].keys() == FIGURES.keys()
    assert document["configs"] == profile.rule
    row = document["figures"]["III"]["rows"][0]
    assert row["values"]["energy_wh"]["value"] > 0
    assert len(row["values"]["energy_wh"]["interval"]) == 2
    assert (row["n"], row["source"]) == (2, "nvml-counter")
    missing = document["figures"]["12"]["rows"][0]["values"]["kv_max_bytes"]
    assert missing == {"value": None, "why": "the server's metrics were not read"}
    assert "beside" not in content(profile)


def test_the_csv_has_a_line_for_each_quantity(profile, tmp_path):
    write(profile, tmp_path / "new" / "folder")
    with (tmp_path / "new" / "folder" / "profile.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == CSV_COLUMNS
    expected = sum(len(table.rows) * len(table.columns) for table in profile.tables)
    assert len(lines) == expected
    budget = [
        line
        for line in lines
        if (line["figure"], line["workflow"], line["of"]) == ("14", "react", "budget=2")
    ]
    assert {line["derived"] for line in budget} == {"True"}
    unknown = next(line for line in lines if line["quantity"] == "kv_max_bytes")
    assert (unknown["value"], unknown["why"]) == ("", "the server's metrics were not read")


def test_the_meters_samples_are_a_recording_of_all_sittings_in_a_row(profile, tmp_path):
    paths = write(profile, tmp_path)
    assert [path.name for path in paths] == ["profile.json", "profile.csv", "power.csv"]
    last = recording(profile)[-1]
    seconds = sum(run.latency_s for each in profile.measured for run in each.runs)
    assert last.joules == pytest.approx(10 * seconds)
    assert last.t_s == pytest.approx(seconds, abs=0.1)
    lines = paths[-1].read_text().splitlines()
    assert lines[0].startswith("# source: ")
    made = make_meter(MeterSpec.model_validate({"replay": "power.csv"}), pid=None, base=tmp_path)
    assert made.read().joules == pytest.approx(0, abs=1)


class Seen(HTMLParser):
    """What a page would fetch, its ids, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.plots = 0
        self.text = ""
        self._hidden = False

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        for name in ("src", "href", "action", "data", "poster"):
            if name in given and not given[name].startswith("#"):
                self.fetched.append(given[name])
        self.plots += given.get("class") == "plot"
        self._hidden = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._hidden = False

    def handle_data(self, data):
        self.text += "" if self._hidden else data


@pytest.fixture(scope="module")
def page(profile, comparison, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "profile.html"
    return write_page(profile, path, comparison).read_text()


@pytest.fixture(scope="module")
def seen(page):
    parser = Seen()
    parser.feed(page)
    return parser


def test_the_page_has_every_section_with_its_plots(profile, seen):
    assert {"ratios", *(f"figure-{figure}" for figure in FIGURES)} <= set(seen.ids)
    drawn = sum(len(table.charts) for table in profile.tables if table.rows)
    assert seen.plots == drawn > 20
    for table in profile.tables:
        assert f"{table.name}: {table.title}" in seen.text
    assert "Beside the paper’s ratios" in seen.text


def test_the_page_fetches_nothing(page, seen):
    assert seen.fetched == []
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert re.findall(r"https?://|@import|url\(", ours) == []


def test_the_plots_are_json_with_units_on_their_axes(page):
    plots = re.findall(r'<script type="application/json">(.*?)</script>', page, flags=re.DOTALL)
    titles = []
    for plot in map(json.loads, plots):
        titles += [
            plot["layout"][axis]["title"]["text"]
            for axis in ("xaxis", "yaxis")
            if "title" in plot["layout"][axis]
        ]
    assert {"latency, mean, s", "accuracy, %", "energy per query, Wh", "tokens"} <= set(titles)


def test_a_page_without_a_paper_has_no_comparison(profile, tmp_path):
    text = write_page(profile, tmp_path / "p.html").read_text()
    assert "Beside the paper’s" not in text


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (Value(0.6667, (0.4, 0.9)), "share", "67 % [40, 90]"),
        (Value(0.031), "share", "3.1 %"),
        (Value(2.412e9), "bytes", "2.41 GB"),
        (Value(512.0), "bytes", "512 B"),
        (Value(137.2), "×", "×137"),
        (Value(0.001234, (0.001, 0.002)), "Wh", "0.00123 [0.001, 0.002]"),
        (Value(None, why="no"), "s", "–"),
        (Value(1234.5), "tokens", "1,234"),
    ],
)
def test_figures_read_well(value, unit, expected):
    assert text.estimate(value, unit) == expected


def test_headers_carry_units_that_values_do_not():
    assert text.header(Column("x", "s", "latency")) == "latency, s"
    assert text.header(Column("x", "share", "accuracy")) == "accuracy"
