"""Every test that the pages on security and reliability name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


@pytest.mark.parametrize("page", ["security.md", "reliability.md"])
def test_every_row_names_a_test_that_is_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "|---" not in line]
    rows = [row for row in rows if not row.rstrip("| ").endswith("Test")]
    assert len(rows) > 10
    for row in rows:
        named = NAMED.findall(row)
        assert named, f"names no test: {row}"
        for file, test in named:
            source = (ROOT / "tests" / file).read_text()
            assert re.search(rf"^(async )?def {test}\(", source, flags=re.MULTILINE), row
