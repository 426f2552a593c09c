"""Claims of exported configs measured again, each in a process of its own that ends with the service.

Run as a module, with the file and what is asked of it as one JSON argument; prints the verification as JSON.

Apart from the engine's loop, because a verification starts and stops servers and measures who else computes here.
"""

import asyncio
import ctypes
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.errors import UserError
from tuner.executors.crew import OURS
from tuner.executors.crew import keys_of
from tuner.executors.slots import IsFree
from tuner.executors.slots import Share
from tuner.executors.slots import Slots
from tuner.serving import Addressed
from tuner.verify import content
from tuner.verify import verify
from workflows.config import load_agent_file
from workflows.errors import WorkflowsError

ENDING_S = 20.0
"""For servers that it has started."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class _Servers:
    keys: frozenset[str]


@asynccontextmanager
async def lent(file: Path, slots: Slots, share: Share) -> AsyncIterator[None]:
    """While the servers of an exported config are lent to it, as to any study, and no study's work is measured with its."""
    servers = _Servers(_keys_of(file))
    slots.add(*servers.keys)

    def choose(is_free: IsFree) -> _Servers | None:
        return servers if all(map(is_free, servers.keys)) else None

    slots.join(share)
    try:
        async with slots.lend(share, choose):
            yield
    finally:
        slots.leave(share)


def _keys_of(file: Path) -> frozenset[str]:
    """What slots call the servers that a config needs; none where the file cannot be read, which shows when it is measured."""
    try:
        models = load_agent_file(file).models.values()
    except WorkflowsError:
        return frozenset()
    keys: set[str] = set()
    for model in models:
        keys.update([OURS] if model.serve else keys_of(Addressed(**model.settings.model_dump()))[0])
    return frozenset(keys)


async def measure_again(file: Path, *, questions: int | None) -> tuple[str, dict[str, Any]]:
    """The outcome and what there is to say: of `tuner verify`, or why nothing could be measured. Cancelled, it ends the process."""
    asked = json.dumps({"file": str(file), "questions": questions, "parent": os.getpid()})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        asked,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, said = await process.communicate()
    except asyncio.CancelledError:
        await _end(process)
        raise
    try:
        content: dict[str, Any] = json.loads(out)
    except ValueError:
        lines = said.decode(errors="replace").strip().splitlines()[-5:]
        return "error", {"error": "\n".join(lines) or f"ended with status {process.returncode}"}
    return str(content.get("outcome", "error")), content


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), ENDING_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def main() -> None:
    """Verify, and print what came of it."""
    asked = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # servers are stopped on the way out
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != asked["parent"]:
            sys.exit("the service is gone")
    try:
        # What its study was allowed to say was decided when that was admitted; its servers are the service's.
        found = verify(Path(asked["file"]), questions=asked["questions"], allow_custom=True)
        print(json.dumps(content(found)))
    except (UserError, WorkflowsError) as error:
        print(json.dumps({"outcome": "error", "error": str(error), "hint": error.hint}))


if __name__ == "__main__":
    main()
