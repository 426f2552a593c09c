"""A process per program, shut in as far as the machine allows: no network, no files, no other processes, little memory.

`isolation()` says what the machine allows. What shuts the process in is `sandbox_boot.py`; here it is
started, listened to, and ended: when the program has run, when it has run or written too much, and when
whoever waits for it no longer does.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL
from asyncio.subprocess import PIPE
from asyncio.subprocess import STDOUT
from asyncio.subprocess import Process
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

WALL_S = 5.0
MEMORY_MIB = 1024
PROCESSES = 16
OUTPUT_BYTES = 16 << 10
FLOOD_BYTES = 4 << 20
"""Output after which a program is stopped."""

_BOX = "/box"
_BOOT = Path(__file__).with_name("sandbox_boot.py")
_CHUNK_BYTES = 64 << 10
_END_S = 2.0

Ended = Literal["exit", "time", "output", "killed"]
"""By itself; at the wall-clock limit; for what it wrote; by something outside, such as a machine out of memory."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a program."""

    output: str
    """What it wrote to stdout and stderr; of much, the beginning and the end."""
    exit_code: int | None
    """As it ended by itself, negative where a signal ended it; None where it was stopped."""
    ended: Ended
    truncated: bool
    """Whether `output` is not all of it."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What a program is kept from: None where that holds, else why it does not, in words."""

    network: str | None
    """It reaches no address, this machine's own included."""
    files: str | None
    """It reads nothing but the interpreter and the system's libraries, and writes to its own folder only."""
    processes: str | None
    """It neither sees nor signals another process, and starts only so many."""
    memory: str | None
    """A process of it takes only so much memory and time, and writes only so much to a file."""


class SandboxError(RuntimeError):
    """A program could not be started, for a reason that is not the program's."""


async def run_python(
    program: str,
    *,
    wall_s: float = WALL_S,
    memory_mib: int = MEMORY_MIB,
    processes: int = PROCESSES,
    output_bytes: int = OUTPUT_BYTES,
) -> Ran:
    """What a program does in a process of its own, with the standard library, an empty folder and no input.

    `memory_mib` is for each process, of which there are at most `processes`; of the output, `output_bytes`
    are kept. No process is left when this returns, or is cancelled. Raises SandboxError.
    """
    limits = _Limits(wall_s, memory_mib, processes, output_bytes)
    holds = await asyncio.to_thread(isolation)
    if holds.memory is not None:
        raise SandboxError(holds.memory)
    ran, _ = await _run(program, limits, namespaces=holds.files is None)
    return ran


@cache
def isolation() -> Isolation:
    """What this machine lets the sandbox keep programs from, tried once; not for use on an event loop. Raises SandboxError."""
    if sys.platform != "linux":
        return Isolation(*["programs are run on Linux only"] * 4)
    limits = _Limits(WALL_S, MEMORY_MIB, PROCESSES, OUTPUT_BYTES)
    try:
        ran, _ = asyncio.run(_run("", limits, namespaces=True))
        if ran.exit_code:
            raise SandboxError(f"the interpreter does not start: {ran.output.strip()}")
    except SandboxError as error:
        ran, own_user = asyncio.run(_run("", limits, namespaces=False))
        held = _without_namespaces(str(error), own_user=own_user)
    else:
        held = Isolation(None, None, None, None)
    if ran.exit_code != 0:  # no reason to do without protection from now on: not remembered
        raise SandboxError(f"an empty program did not run: {ran}")
    return held


def _without_namespaces(reason: str, *, own_user: bool) -> Isolation:
    return Isolation(
        network=f"no namespaces ({reason})",
        files="no namespaces: it reads what any user may"
        if own_user
        else "no namespaces: it reads and writes what this user may",
        processes="no namespaces: it sees other processes, and cannot end them"
        if own_user
        else "no namespaces: it sees other processes, and can end this user's",
        memory=None,
    )


@dataclass(frozen=True, slots=True)
class _Limits:
    wall_s: float
    memory_mib: int
    processes: int
    output_bytes: int


async def _run(program: str, limits: _Limits, *, namespaces: bool) -> tuple[Ran, bool]:
    """What came of the program, and whether it ran as a user of its own."""
    with tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True) as folder:
        # A lone surrogate is passed on, for Python to refuse.
        Path(folder, "program.py").write_bytes(program.encode("utf-8", "surrogatepass"))
        listen, tell = os.pipe()
        try:
            process = await _boot(folder, tell, limits, namespaces=namespaces)
            os.close(tell)
            tell = -1
            try:
                ended, written, size = await _follow(process, limits)
            finally:
                await _end(process)
            report = json.loads(os.read(listen, _CHUNK_BYTES).partition(b"\n")[0] or b"null")
        finally:
            os.close(listen)
            if tell >= 0:
                os.close(tell)
    if report is None:
        ended = "killed" if ended == "exit" else ended
        report = {}
    if "error" in report:
        raise SandboxError(report["error"])
    output = _show(written, size, limits.output_bytes)
    for place in (folder, _BOX):  # in a traceback, of no use to its reader
        output = output.replace(f"{place}/program.py", "program.py")
    code = report["code"] if ended == "exit" else None
    return Ran(output, code, ended, size > limits.output_bytes), report.get("own_user", True)


async def _boot(folder: str, report: int, limits: _Limits, *, namespaces: bool) -> Process:
    job = {
        "python": os.path.realpath(sys.executable),
        "prefixes": sorted(
            {os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix)}
        ),
        "folder": folder,
        "box": _BOX,
        "report": report,
        "namespaces": namespaces,
        "wall_s": limits.wall_s,
        "memory_bytes": limits.memory_mib << 20,
        "processes": limits.processes,
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-S", "-B", str(_BOOT), json.dumps(job)),
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        env={},
        pass_fds=(report,),
        start_new_session=True,
    )


async def _follow(process: Process, limits: _Limits) -> tuple[Ended, bytes, int]:
    """How a program ended, the beginning and the end of what it wrote, and how much that was."""
    assert process.stdout is not None
    kept, size, half = b"", 0, limits.output_bytes // 2
    try:
        async with asyncio.timeout(limits.wall_s):
            while chunk := await process.stdout.read(_CHUNK_BYTES):
                kept, size = kept + chunk, size + len(chunk)
                if size > limits.output_bytes:
                    kept = kept[:half] + kept[-half:]
                if size > FLOOD_BYTES:
                    return "output", kept, size
            await process.wait()
    except TimeoutError:
        return "time", kept, size
    return "exit", kept, size


async def _end(process: Process) -> None:
    """Have the process end what it started, and itself; by force where it does not."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_END_S):
            if process.returncode is None:
                process.terminate()
            while await process.stdout.read(_CHUNK_BYTES):
                pass
            await process.wait()
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _show(kept: bytes, size: int, most: int) -> str:
    if size <= most:
        return kept.decode("utf-8", "replace")
    half = most // 2
    head, tail = (part.decode("utf-8", "replace") for part in (kept[:half], kept[-half:]))
    return f"{head}\n… {size - 2 * half} bytes left out …\n{tail}"
