"""The README's pictures, made from a study's database, so that they show what the commands show now.

    python benchmarks/pictures.py studies/quickstart.yaml

docs/pictures/report.png is the report of that study in Chromium, 300 kB at most.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from tuner.report import read_report
from tuner.report.page import write_page
from tuner.results import open_results
from tuner.spec import LoadedStudy
from tuner.spec import load_study

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
MOST_BYTES = 300_000
SIZE = (1280, 900)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def main() -> None:
    """Make the pictures and print their paths."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="a study that has been run")
    parser.add_argument("--out", type=Path, default=PICTURES, help="folder (docs/pictures)")
    parser.add_argument("--only", choices=DRAW, help="one of them")
    parser.add_argument("--quick", action="store_true", help="as without it: takes seconds")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    arguments = parser.parse_args()
    study = load_study(arguments.study)
    arguments.out.mkdir(parents=True, exist_ok=True)
    made = {}
    for name, draw in DRAW.items():
        if arguments.only in (None, name):
            path = arguments.out / f"{name}.png"
            draw(study, path)
            made[str(path)] = path.stat().st_size
            if made[str(path)] > MOST_BYTES:
                sys.exit(f"{path} has {made[str(path)]:,} bytes; {MOST_BYTES:,} at most")
    if arguments.json:
        print(json.dumps({"benchmark": "pictures", "bytes": made}))
    else:
        for path, size in made.items():
            print(f"{path}  {size / 1000:.0f} kB")


def report(study: LoadedStudy, path: Path) -> None:
    """The report from its front on, as a browser shows it."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("chromium is not installed; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_path = Path(folder) / "report.html"
        with closing(open_results(study)) as store:
            write_page(read_report(study, store), store, page_path)
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        width, height = SIZE
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto(page_path.as_uri())
        page.wait_for_function("document.documentElement.dataset.drawn")
        top = page.evaluate("document.getElementById('front').getBoundingClientRect().top")
        bottom = page.evaluate("document.getElementById('pairs').getBoundingClientRect().bottom")
        area = {"x": 0, "y": top - 20, "width": width, "height": bottom - top + 40}
        page.screenshot(path=path, clip=area, full_page=True)
        browser.close()


DRAW: Mapping[str, Callable[[LoadedStudy, Path], None]] = {"report": report}
"""Each picture by its name; a new one is an entry here."""


if __name__ == "__main__":
    main()
