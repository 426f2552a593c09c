"""The environment that checks and tests run in is pinned by hash, for whichever registry it comes from."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FILES = ("dev", "tools")


def pinned(name: str) -> dict[str, tuple[str, list[str]]]:
    """Version and hashes of every package in a file of requirements."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    found = {}
    for entry in (
        re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    ):
        requirement, *hashes = entry.partition(" ; ")[0].split() + re.findall(r"--hash=\S+", entry)
        package, _, version = requirement.partition("==")
        found[canonicalize_name(package.partition("[")[0])] = (version, list(dict.fromkeys(hashes)))
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_package_is_pinned_by_sha256(name: str) -> None:
    packages = pinned(name)
    assert len(packages) > 20
    for package, (version, hashes) in packages.items():
        assert re.fullmatch(r"[\w.+!]+", version), package
        assert hashes, package
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), package


@pytest.mark.parametrize(
    "file", sorted((ROOT / "requirements").iterdir()), ids=lambda file: file.name
)
def test_no_registry_is_named(file: Path) -> None:
    text = file.read_text()
    assert "://" not in text
    assert not re.search(r"index|find-links|trusted-host", text)


def test_what_the_project_asks_for_is_there() -> None:
    extras = re.search(r"^EXTRAS := (.*)$", MAKEFILE, flags=re.MULTILINE)
    assert extras is not None
    asked = list(PROJECT["dependencies"])
    for extra in extras[1].split():
        asked += PROJECT["optional-dependencies"][extra]
    packages = pinned("dev")
    for requirement in map(Requirement, asked):
        version, _ = packages[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, requirement
    assert "setuptools" in packages  # with which tuner itself is built
    assert set(extras[1].split()) == PROJECT["optional-dependencies"].keys() - {"gp"}


def test_what_is_installed_for_tests_is_what_is_pinned() -> None:
    dev = MAKEFILE.partition(".venv/dev: ")[2].partition("\n\n")[0]
    assert "--require-hashes --requirement requirements/dev.txt" in dev
    assert "--no-deps --no-build-isolation --editable ." in dev
