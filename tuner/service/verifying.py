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
from pathlib import Path
from typing import Any

ENDING_S = 20.0
"""For servers that it has started."""

_PR_SET_PDEATHSIG = 1


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
    from tuner.errors import UserError
    from tuner.verify import content
    from tuner.verify import verify
    from workflows.errors import WorkflowsError

    try:
        # What its study was allowed to say was decided when that was admitted; its servers are the service's.
        found = verify(Path(asked["file"]), questions=asked["questions"], allow_custom=True)
        print(json.dumps(content(found)))
    except (UserError, WorkflowsError) as error:
        print(json.dumps({"outcome": "error", "error": str(error), "hint": error.hint}))


if __name__ == "__main__":
    main()
