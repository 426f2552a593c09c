"""What is heard of each study, numbered, in a file of its own that is cut when it grows: for whoever listens later, or again.

Apart from the database, in which a line for each question would be a second transaction for each.
"""

import errno
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LARGEST = 32 << 20
"""Bytes of a log; then its older half goes."""


class Log:
    """Writes one study's events; one writer, any number of threads in it."""

    def __init__(self, path: Path, *, largest: int = LARGEST) -> None:
        self._path = path
        self._largest = largest
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._last = self._mend()

    def append(self, line: Mapping[str, Any]) -> None:
        """Keep an event under the next number. Raises OSError where there is no room for it; the log is as before then."""
        with self._lock:
            text = json.dumps({"id": self._last + 1, **line}, ensure_ascii=False, allow_nan=False)
            self._write(text.encode(errors="backslashreplace") + b"\n")
            self._last += 1
            if self._file.tell() > self._largest:
                self._cut()

    def _write(self, data: bytes) -> None:
        before = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.truncate(self._path, before)
            raise

    def close(self) -> None:
        """Write no more."""
        self._file.close()

    def _mend(self) -> int:
        """Drop a last line that was being written when its writer was killed; gives the number of the last whole one."""
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._path, whole)
        last = content[:whole].rstrip(b"\n").rpartition(b"\n")[2]
        return number_of(last) if last else 0

    def _cut(self) -> None:
        with self._path.open("rb") as old:
            old.seek(self._largest // 2)
            old.readline()
            kept = old.read()
        fresh = self._path.with_suffix(".new")
        fresh.write_bytes(kept)
        self._file.close()
        fresh.replace(self._path)
        self._file = self._path.open("ab", buffering=0)


class Reader:
    """Reads a log while it is written."""

    def __init__(self, path: Path, *, after: int = 0) -> None:
        """Begins behind the event of this number."""
        self._path = path
        self._last = after
        self._inode, self._offset = 0, 0

    def new(self, most: int = 1000) -> list[tuple[int, str]]:
        """Number and text of events that came since, so many at most."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return []
        found: list[tuple[int, str]] = []
        with file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode:  # cut, and so another file
                self._inode, self._offset = inode, 0
            file.seek(self._offset)
            while len(found) < most:
                line = file.readline()
                if not line.endswith(b"\n"):  # is being written
                    break
                self._offset += len(line)
                number = number_of(line)
                if number > self._last:
                    self._last = number
                    found.append((number, line.decode().rstrip("\n")))
        return found


def number_of(line: bytes) -> int:
    """The number of an event, which stands first in its line."""
    return int(line.removeprefix(b'{"id": ').partition(b",")[0].rstrip(b"}"))
