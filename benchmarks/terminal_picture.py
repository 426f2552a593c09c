"""A picture of what `tuner run` shows in a terminal: a study on the recorded table, run in a pseudo-terminal and looked at half-way.

What stands in the picture is what the program wrote, read back by a terminal emulator (pyte) and drawn by rich; nothing is made up.
"""

import argparse
import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import pyte
import yaml
from rich.console import Console
from rich.style import Style
from rich.text import Text

HERE = Path(__file__).parent
STUDY = HERE / "tables" / "study.yaml"
OUT = HERE.parent / "docs" / "pictures" / "terminal.svg"
BUDGET = "{trials: 20, wall_clock: 30m, energy_wh: 2}"
PATIENCE_S = 300.0


def main() -> None:
    """Run the study in a terminal and write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", type=Path, default=STUDY, help="a replayed study; a copy is run")
    parser.add_argument("--budget", default=BUDGET, help=f"for the study (default: {BUDGET})")
    parser.add_argument("--columns", type=int, default=120)
    parser.add_argument("--lines", type=int, default=28)
    parser.add_argument(
        "--share", type=float, default=0.6, help="of the budget that is spent in the picture"
    )
    parser.add_argument("--quick", action="store_true", help="look after a tenth of the budget")
    parser.add_argument("--json", action="store_true", help="print what was seen as JSON")
    parser.add_argument("--out", type=Path, default=OUT, help=f"(default: {OUT.name})")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = copied(arguments.study, yaml.safe_load(arguments.budget), Path(folder))
        share = 0.1 if arguments.quick else arguments.share
        screen = seen(study, arguments.columns, arguments.lines, share)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(drawn(screen, f"tuner run {arguments.study.name}"), encoding="utf-8")
    lines = [line.rstrip() for line in screen.display]
    if arguments.json:
        print(json.dumps({"out": str(arguments.out), "lines": lines}, indent=2, ensure_ascii=False))
    else:
        print("\n".join(lines))
        print(arguments.out, file=sys.stderr)


def copied(study: Path, budget: dict[str, Any], folder: Path) -> Path:
    """The study with another budget, its space and its table in a folder of their own: what it finds is not kept."""
    content = yaml.safe_load(study.read_text(encoding="utf-8"))
    for key, place in (("search_space", content), ("replay", content["executor"])):
        source = study.parent / place[key]
        shutil.copy(source, folder / source.name)
        place[key] = source.name
    content |= {"budget": budget, "storage": "sqlite:///tuner.db"}
    path = folder / study.name
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def seen(study: Path, columns: int, lines: int, share: float) -> pyte.Screen:
    """The terminal's screen once so much of the first budget is spent; the run is ended then."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-c", "from tuner.cli import main; main()", "run", str(study)]
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm-256color"},
    )
    os.close(theirs)
    screen = pyte.Screen(columns, lines)
    stream = pyte.ByteStream(screen)
    try:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if not select.select([ours], [], [], 0.2)[0]:
                # Nothing is on its way: the screen is whole.
                if spent(screen) >= share:
                    return screen
                continue
            try:
                stream.feed(os.read(ours, 65536))
            except OSError:
                break
        sys.exit("the run ended, or took too long, before so much was spent")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def spent(screen: pyte.Screen) -> float:
    """The share of the first budget that the screen says is spent; 0 before it says so."""
    for line in screen.display:
        found = re.match(r"\w+ +([\d,]+) of ([\d,]+) ", line)
        if found:
            some, whole = (float(text.replace(",", "")) for text in found.groups())
            return some / whole
    return 0.0


def drawn(screen: pyte.Screen, title: str) -> str:
    """The screen as SVG."""
    console = Console(record=True, width=screen.columns, file=io.StringIO(), force_terminal=True)
    last = max((n for n, line in enumerate(screen.display) if line.strip()), default=0)
    for row in range(last + 1):
        text = Text()
        cells = [screen.buffer[row][column] for column in range(screen.columns)]
        for look, same in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
            colour = None if look[0] == "default" else look[0]
            written = "".join(cell.data for cell in same)
            text.append(written, Style(color=colour, bold=look[1]))
        text.rstrip()
        console.print(text, soft_wrap=True)
    return console.export_svg(title=title)


if __name__ == "__main__":
    main()
