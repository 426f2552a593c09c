"""Runs a server's program and sees it end: run as a script, so that it imports nothing of ours and starts fast.

Takes its options as one JSON argument. It lives between the tuner and a program that we cannot change, so that the
program and whatever it started end when the tuner does, `kill -9` included.

start the program; become the parent of whatever loses its own
until the program ends, or our stdin closes, or the tuner is gone: wait
ask the program to end; after a while, kill it and all that it has started
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 10.0
"""GPUs and shared memory are left tidy by a program that ends by itself."""
KILL_S = 5.0


def main() -> None:
    """Run the program until it or the tuner ends; exit with its status."""
    options = json.loads(sys.argv[1])
    parent = os.getppid()
    over = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tuner, which then stops us
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        program = subprocess.Popen(  # noqa: S603
            options["command"],
            env={**os.environ, **options["environment"]},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            preexec_fn=_end_with_parent,  # no thread of ours runs yet
        )
    except OSError as error:
        print(f"{options['command'][0]}: {error.strerror}", file=sys.stderr)
        shutil.rmtree(options["folder"], ignore_errors=True)
        sys.exit(127)
    threading.Thread(target=_wait_for_stdin, args=[over], daemon=True).start()
    threading.Thread(target=_wait_for, args=[program, over], daemon=True).start()
    # A process that the tuner forked may hold our stdin open after the tuner's death.
    while not over.wait(1.0) and os.getppid() == parent:
        pass
    left_alone = program.poll() is None
    _end(program)
    if left_alone:  # else the tuner wants to read the log
        shutil.rmtree(options["folder"], ignore_errors=True)
    code = program.returncode
    os._exit(128 - code if code < 0 else code)


def _wait_for_stdin(over: threading.Event) -> None:
    sys.stdin.read()  # nothing is ever written: this returns when the other end is gone
    over.set()


def _wait_for(program: "subprocess.Popen[bytes]", over: threading.Event) -> None:
    program.wait()
    over.set()


def _end(program: "subprocess.Popen[bytes]") -> None:
    """End the program and all its descendants: first by asking, then by force."""
    program.terminate()
    try:
        program.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()
    me, deadline_s = psutil.Process(), time.monotonic() + KILL_S
    while (left := me.children(recursive=True)) and time.monotonic() < deadline_s:
        for process in left:
            _kill(process)
        psutil.wait_procs(left, timeout=0.2)


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.kill()


def _end_with_parent() -> None:
    """In the program's process, before it begins: should we be killed, so is it."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
