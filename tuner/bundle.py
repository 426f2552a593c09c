"""A study with every file that it names as one piece of data, to be sent to a service and written down there.

Apart from the service, because whoever submits packs: nothing is read but the study's own files, and nothing is
written outside of the folder that is given.
"""

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pathlib import PurePosixPath
from typing import Any

from tuner.errors import UserError
from tuner.spec import LoadedStudy
from tuner.spec import Replay
from tuner.tasks import files_of

MOST_FILES = 64
LONGEST_NAME = 200
"""Characters."""

_NAME = re.compile(r"[^\x00-\x1f\x7f\\/]+(/[^\x00-\x1f\x7f\\/]+)*")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A study file and what it names, by their places below the folder that holds all of them."""

    study: str
    """Which of them is the study file."""
    files: Mapping[str, bytes]

    def __post_init__(self) -> None:
        if self.study not in self.files:
            raise UserError(
                f"the bundle has no file {self.study!r}, which is to be its study",
                hint="tuner submit STUDY makes bundles",
            )
        if len(self.files) > MOST_FILES:
            raise UserError(
                f"the bundle has {len(self.files)} files, and {MOST_FILES} are allowed",
                hint="put the data into fewer files",
            )
        for name in self.files:
            _require_plain(name)

    def digest(self) -> str:
        """16 hex digits that change when any of its bytes does."""
        found = hashlib.sha256(self.study.encode())
        for name, content in sorted(self.files.items()):
            found.update(f"\0{name}\0{len(content)}\0".encode())
            found.update(content)
        return found.hexdigest()[:16]

    def place(self, name: str) -> str | None:
        """Which of the files a path in the study file leads to, None for none of them."""
        try:
            path = os.path.normpath(PurePosixPath(self.study).parent / name)
        except ValueError:
            return None
        return path if path in self.files else None

    def content(self) -> dict[str, Any]:
        """The same as plain JSON."""
        files = {name: base64.b64encode(data).decode() for name, data in self.files.items()}
        return {"study": self.study, "files": files}

    @classmethod
    def read(cls, study: str, files: Mapping[str, str]) -> "Bundle":
        """From what `content` gives. Raises UserError."""
        decoded = {}
        for name, text in files.items():
            try:
                decoded[name] = base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError) as error:
                raise UserError(
                    f"the file {name!r} of the bundle is not in base64: {error}",
                    hint="tuner submit STUDY makes bundles",
                ) from None
        return cls(study, decoded)

    def write(self, folder: Path) -> Path:
        """Write every file into a folder, which is made; gives the study file. Raises UserError."""
        try:
            for name, content in self.files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        except OSError as error:
            raise UserError(
                f"the file {error.filename} cannot be written: {error.strerror}",
                hint="no name may be another one's folder, and the service's disk must have room",
            ) from None
        return folder / self.study


def pack(study: LoadedStudy) -> Bundle:
    """A study with its search space, its task's files and its table. Raises UserError for one that cannot travel."""
    folder = study.path.parent.absolute()
    named = {"the study": study.path.name, **named_files(study)}
    for key, name in named.items():
        if Path(name).is_absolute():
            raise UserError(
                f"{study.path}: {key}: {name} is an absolute path, which leads nowhere on another machine",
                hint="write it as it is found from the study file's folder",
            )
    paths = {key: Path(os.path.normpath(folder / name)) for key, name in named.items()}
    top = Path(os.path.commonpath([path.parent for path in paths.values()]))
    files = {}
    for key, path in paths.items():
        try:
            files[path.relative_to(top).as_posix()] = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"{study.path}: {key}: {path} cannot be read: {error.strerror}",
                hint="a relative path starts from the study file's folder",
            ) from None
    return Bundle(paths["the study"].relative_to(top).as_posix(), files)


def named_files(study: LoadedStudy) -> dict[str, str]:
    """The files that a study names, by key; those of its models, which a service has of its own, are none of them."""
    named = {"search_space": study.spec.search_space}
    named |= {f"task.{key}": name for key, name in files_of(study.task_options).items()}
    executor = study.spec.executor
    if isinstance(executor, Replay):
        named["executor.replay"] = executor.replay
    return named


def _require_plain(name: str) -> None:
    """Refuse the name of a file that could lie elsewhere than below the bundle's folder."""
    parts = name.split("/")
    is_plain = _NAME.fullmatch(name) is not None and not {".", ".."} & set(parts)
    if not is_plain or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise UserError(
            f"the bundle has a file {name[:LONGEST_NAME]!r}, which is no plain relative path",
            hint=f"write names like data/questions.jsonl, of {LONGEST_NAME} bytes at most",
        )
