r"""Whether two mathematical answers are equal, by math-verify; apart, because algebra on a model's text needs a process of its own.

    \frac{1}{2} = 0.5 = $\frac12$ = 50\%        2\sqrt{2} = \sqrt{8}        (1,2) ≠ (2,1)

A simplification may take for ever or ask for all memory, which no thread can be stopped from. So answers
are compared in a worker: it reads a JSON line [answer, right answer, seconds], writes true or false, and has
itself ended by the system where a comparison takes longer. The next comparison starts another.

Of an answer, what is in its last \boxed{} counts; else what stands between dollar signs; else all of it,
and of a sentence what follows the last "is" or "are".
"""

import asyncio
import json
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import suppress
from threading import Lock

MEMORY_BYTES = 2 * 2**30

_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_DELIMITED = re.compile(r"\$[^$]+\$|\\\(.+\\\)|(?<!\\)\\\[.+\\\]", re.DOTALL)
_LEAD = re.compile(r"(?:.*\b(?:is|are)\b:?\s+)?(?:(?:an?|the)\s+(?=[A-Za-z]{2}))?", re.DOTALL)
_WORDS_IN_A_ROW = re.compile(r"(?<![\\{\w])[A-Za-z]{2,} +[A-Za-z]{2,}")
# How an answer is typed where LaTeX is not at hand.
_TYPED = (
    (re.compile(r"\*\*"), "^"),
    (re.compile("°"), r"^\\circ"),
    (re.compile("∞"), r"\\infty"),
    (re.compile(r"√\s*(\w+)"), r"\\sqrt{\1}"),
    (re.compile("√"), r"\\sqrt"),
    (re.compile(r"(?<![\\A-Za-z])(pi|sin|cos|tan|cot|sec|csc|log|ln)(?![A-Za-z])"), r"\\\1"),
)


def last_boxed(text: str) -> str | None:
    r"""What the last \boxed{…} or \boxed … of a text holds; None where there is none, or its brace stays open."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    rest = text[boxes[-1].end() :]
    if not rest.startswith("{"):
        return rest.partition("$")[0].strip()
    depth = 0
    for brace in _BRACE.finditer(rest):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return rest[1 : brace.start()].strip()
    return None


class Comparer:
    """Compares answers, one at a time, in a worker that is started at the first need and ends with this object."""

    def __init__(self, *, limit_s: float = 5.0) -> None:
        self._limit_s = limit_s
        self._lock = Lock()
        self._worker: subprocess.Popen[str] | None = None
        self._stop: Callable[[], object] | None = None

    async def same(self, answer: str, right: str) -> bool:
        """Whether both are equal; False for what cannot be read, or takes longer than `limit_s`.

        Raises RuntimeError when no worker can be started.
        """
        # In a thread, so that other questions go on meanwhile, and in any event loop.
        return await asyncio.to_thread(self._same, answer, right)

    def _same(self, answer: str, right: str) -> bool:
        if answer.strip() == right.strip():
            return True
        with self._lock:
            worker = self._worker
            if worker is None or worker.poll() is not None:
                worker = self._start()
            reply = _ask(worker, json.dumps([answer, right, self._limit_s]))
        return bool(reply) and bool(json.loads(reply))

    def _start(self) -> subprocess.Popen[str]:
        if self._stop is not None:
            self._stop()
        self._worker = worker = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._stop = weakref.finalize(self, _end, worker)
        if not _read(worker):
            raise RuntimeError("the process that compares mathematical answers does not start")
        return worker


def _ask(worker: subprocess.Popen[str], line: str) -> str:
    """The worker's reply; "" when it ended instead."""
    assert worker.stdin is not None
    try:
        worker.stdin.write(line + "\n")
        worker.stdin.flush()
    except BrokenPipeError:
        return ""
    return _read(worker)


def _read(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    reply = worker.stdout.readline()
    if not reply:
        worker.wait()
    return reply


def _end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.communicate()


def _serve() -> None:
    """The worker: ends when its input does."""
    import os
    import resource
    import signal

    import math_verify  # noqa: F401  what takes long is done before the first comparison

    with suppress(ValueError):  # not every system lets it be bounded
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the tuner's to answer
    replies = sys.stdout
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  parsers talk
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        answer, right, limit_s = json.loads(line)
        # Nothing handles the alarm, so it ends the process, whatever that is at.
        signal.setitimer(signal.ITIMER_REAL, limit_s)
        same = _equal(answer, right)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(json.dumps(same), file=replies, flush=True)


def _equal(answer: str, right: str) -> bool:
    from math_verify import parse
    from math_verify import verify

    expected = parse(_box(right), parsing_timeout=None)
    return any(
        verify(expected, parse(reading, parsing_timeout=None), timeout_seconds=None)
        for reading in _readings(answer)
    )


def _readings(answer: str) -> Iterator[str]:
    """The ways to read an answer, most literal first."""
    boxed = last_boxed(answer)
    if boxed is not None:
        yield _box(boxed)
    elif _DELIMITED.search(answer):
        yield answer
    else:
        text = _LEAD.sub("", answer.strip(), count=1).rstrip(".")
        for typed, latex in _TYPED:
            text = typed.sub(latex, text)
        yield _box(text)
        if _WORDS_IN_A_ROW.search(text):
            yield text  # words and a number: math-verify looks for the number


def _box(text: str) -> str:
    return rf"\boxed{{{text}}}"


if __name__ == "__main__":
    _serve()
