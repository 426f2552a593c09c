"""The recorded table that comes with the benchmarks: it is whole, and a study runs on it."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tuner.results import Front
from tuner.space import load_space
from tuner.spec import load_study
from tuner.study import run_study
from tuner.table import Table

ROOT = Path(__file__).resolve().parents[1]
TABLES = ROOT / "benchmarks" / "tables"


@pytest.mark.slow
def test_the_table_has_every_answer_of_its_space() -> None:
    table = Table.read(TABLES / "quickstart.jsonl.gz")
    space = load_space(ROOT / "search_spaces" / "quickstart.yaml")
    configs = list(space.configs(list(table.header.models)) or ())
    fields = table.fields(configs, ["score", "latency_s", "energy_j"])
    assert fields.shape == (space.size(list(table.header.models)), 60, 3)
    assert not np.isnan(fields).any()
    assert (TABLES / "quickstart.jsonl.gz").stat().st_size < 10_000_000


@pytest.mark.slow
def test_a_study_runs_on_it_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks" / "tables" / "study.yaml"
    shutil.copytree(TABLES, path.parent)
    shutil.copytree(ROOT / "search_spaces", tmp_path / "search_spaces")
    path.write_text(path.read_text().replace("{trials: 20}", "{trials: 6}"))
    study = load_study(path)
    run_study(study)
    front = Front.read(study)
    assert front.search
    assert front.confirmed
    for point in (*front.search, *front.confirmed):
        assert point.trial.sources == {"energy": "replayed cpu-estimate"}
    command = [str(Path(sys.executable).parent / "tuner"), "front", str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "replayed cpu-estimate" in shown
