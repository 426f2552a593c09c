"""What is installed from the wheel works without a checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("pyproject.toml", "README.md", "tuner", "workflows", "search_spaces", "studies")


@pytest.mark.slow
def test_init_finds_its_files_in_the_wheel(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for part in PARTS:
        path = ROOT / part
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, source / part)
    wheels = tmp_path / "wheels"
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(wheels)]
    built = subprocess.run([*command, str(source)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = wheels.glob("tuner-*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
        names = archive.namelist()
    assert {"tuner/data/kim2025.json", "tuner/profile/page.html.j2", "tuner/report/page.js"} <= set(
        names
    )
    assert not [name for name in names if name.startswith(("tests", "studies", "search_spaces"))]

    user = tmp_path / "user"
    user.mkdir()
    code = f"""
import sys, tuner
from tuner.cli import main
assert tuner.__file__.startswith({str(installed)!r}), tuner.__file__
sys.argv = ["tuner", "init"]
main()
"""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=user,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    for name in ("search_spaces/quickstart.yaml", "studies/quickstart.yaml"):
        assert (user / name).read_bytes() == (ROOT / name).read_bytes()
