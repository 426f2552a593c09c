"""A real PostgreSQL on loopback, in a folder of its own: started, killed, started again, ended and removed.

Run it, and it prints its URL as JSON and serves until it is interrupted. Tests and benchmarks start it by `Postgres`.
"""

import argparse
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

OWNER = "tuner"
GUARDED = "guarded"
"""A role that has to give a password, once it was made; the owner need not."""

STARTS_WITHIN_S = 60.0


def binaries() -> Path | None:
    """The folder with PostgreSQL's programs, the newest there is; None where there are none."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3])
    )
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class Postgres:
    """A server that is this process's own; `start` it again after `kill`."""

    def __init__(self, folder: Path, programs: Path, *, settings: tuple[str, ...] = ()) -> None:
        self._data = folder / "data"
        self._log = folder / "log"
        self._programs = programs
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._as: dict[str, Any] = _unprivileged(folder)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._initialise()

    def _initialise(self) -> None:
        command = [str(self._programs / "initdb"), "-D", str(self._data), "-U", OWNER]
        command += ["-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, **self._as)
        rules = self._data / "pg_hba.conf"
        guarded = f"host all {GUARDED} 127.0.0.1/32 scram-sha-256\n"
        rules.write_text(guarded + rules.read_text())

    def url(self, database: str = "postgres", user: str = OWNER) -> str:
        """The address of a database, as a study has it."""
        return f"postgresql+psycopg://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        # Killed processes lose nothing without fsync; only a machine that loses power does.
        options = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off")
        for option in (*options, *self._settings):
            command += ["-c", option]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **self._as)
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        command = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p"]
        return subprocess.run([*command, str(self.port)]).returncode == 0

    def kill(self) -> None:
        """End it and all of its processes at once, with -9."""
        assert self._process is not None
        family = [psutil.Process(self._process.pid)]
        family += family[0].children(recursive=True)
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self._process.wait()
        psutil.wait_procs(family, timeout=10)

    def stop(self) -> None:
        """End it in an orderly way, without waiting for who is connected."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait()

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run a statement outside of any transaction."""
        import psycopg

        address = f"host=127.0.0.1 port={self.port} user={OWNER} dbname={database}"
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[arg-type]  # ours, and no user's

    def make_database(self, name: str, template: str = "template0") -> str:
        """A new database; its address."""
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self.url(name)


@contextmanager
def postgres(*, settings: tuple[str, ...] = ()) -> Iterator[Postgres]:
    """A server until the block ends. Raises RuntimeError where there are no programs for it."""
    programs = binaries()
    if programs is None:
        raise RuntimeError("PostgreSQL's programs are not installed (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="tuner-postgres-"))
    try:
        server = Postgres(folder, programs, settings=settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged(folder: Path) -> dict[str, Any]:
    """How to run its programs, which refuse to be root's; the folder is then somebody else's."""
    if os.getuid() != 0:
        return {}
    names = ("postgres", "nobody")
    known = {each.pw_name: each for each in pwd.getpwall()}
    who = next(known[name] for name in names if name in known)
    os.chown(folder, who.pw_uid, who.pw_gid)
    return {"user": who.pw_uid, "group": who.pw_gid, "extra_groups": [], "cwd": folder}


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    with postgres() as server:
        print(json.dumps({"url": server.url()}), flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
