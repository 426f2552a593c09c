"""What runs the studies of a service: one thread with one event loop, in which each study that runs is a task.

Apart from the HTTP side, which only changes what the book says: here the book is read, and what runs is made to agree.

    again and again, and at once where somebody has changed the book
        a study that runs and should not is cancelled: every question it has finished is kept
        one that should run and does not is begun, those of before first, then whose turn it is
        one that has spent its budget is ended
        a claim that is due is measured again
"""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Awaitable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Protocol

import sqlalchemy as sa

from tuner.content import front_content
from tuner.content import recommended
from tuner.errors import UserError
from tuner.events import Event
from tuner.events import Report
from tuner.events import StudyEnded
from tuner.executors.slots import Share
from tuner.executors.slots import Slots
from tuner.results import open_results
from tuner.service.admission import as_run
from tuner.service.book import Book
from tuner.service.book import State
from tuner.service.book import Submission
from tuner.service.book import Verification
from tuner.service.limits import exceeded
from tuner.service.log import Log
from tuner.service.spec import LoadedService
from tuner.service.verifying import lent
from tuner.service.verifying import measure_again
from tuner.spec import LoadedStudy
from tuner.stream import Stream
from tuner.stream import now
from workflows.errors import WorkflowsError

LOOK_S = 1.0
"""Between two looks at the book."""

LIMITS_S = 5.0
"""Between two looks at what a study has spent."""

MOST_LOOKING = 0.02
"""Share of the time that may be spent on looking: of a study of a million questions it takes a while."""

_log = logging.getLogger(__name__)


class Run(Protocol):
    """What runs a study: `run_study_among`."""

    def __call__(
        self, study: LoadedStudy, slots: Slots, *, weight: float, report: Report
    ) -> Awaitable[None]:
        """Run or resume it."""
        ...


@dataclass(slots=True)
class _Running:
    submission: Submission
    task: "asyncio.Task[None]"
    is_ending: bool = False
    """Whether it was cancelled: once, as it has to close what it opened."""

    def end(self) -> None:
        """Cancel it."""
        if not self.is_ending:
            self.is_ending = True
            self.task.cancel()


class Folders:
    """Where what belongs to a study lies."""

    def __init__(self, folder: Path) -> None:
        self.root = folder

    def of(self, name: str) -> Path:
        """All of it."""
        return self.root / name

    def bundle(self, name: str, digest: str) -> Path:
        """The files of one bundle."""
        return self.of(name) / f"bundle-{digest}"

    def submitted(self, submission: Submission) -> Path:
        """The study's file, as it was submitted."""
        return self.bundle(submission.name, submission.digest) / submission.study

    def log(self, name: str) -> Path:
        """What was heard of it."""
        return self.of(name) / "events.jsonl"

    def exports(self, name: str) -> Path:
        """Files of exported configs."""
        return self.of(name) / "exports"


class Engine:
    """Runs what the book says should run."""

    def __init__(self, service: LoadedService, book: Book, run: Run) -> None:
        self._service = service
        self._book = book
        self._run = run
        self.folders = Folders(service.folder)
        self._logs: dict[str, Log] = {}
        self._logs_lock = threading.Lock()
        self._tasks: dict[str, _Running] = {}
        self._verifying: tuple[bool, asyncio.Task[None]] | None = None
        """Whether it starts servers, and the task."""
        self._slots: Slots | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="tuner-engine", daemon=True)
        self.failure: str | None = None
        """Why it has ended by itself, which it should not."""

    # From other threads

    def start(self) -> None:
        """Begin, and go on with what was running."""
        self._thread.start()

    def begin_to_stop(self) -> None:
        """Cancel what runs, which goes on at the next start."""
        self._stopping = True
        self.wake()

    def stop(self) -> None:
        """The same, and wait for it."""
        self.begin_to_stop()
        self._thread.join()
        for log in self._logs.values():
            log.close()

    def wake(self) -> None:
        """Look at the book now."""
        loop, changed = self._loop, self._changed
        if loop is not None and changed is not None:
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(changed.set)

    @property
    def lives(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive() and self.failure is None

    @property
    def is_stopping(self) -> bool:
        """Whether it has been told to end."""
        return self._stopping

    def slots(self) -> tuple[int, int]:
        """How many servers, workers and devices are lent, and how many there are."""
        return (0, 0) if self._slots is None else self._slots.used

    def change(
        self, name: str, to: State, *, of: Sequence[State], reason: str = "", digest: str | None = None
    ) -> bool:  # fmt: skip
        """Have the book say so, if the study is in one of these states; whether it was."""
        moved = self._book.move(name, to, of=of, reason=reason, digest=digest)
        if moved:
            self.tell_state(name, to, reason)
        return moved

    def tell_state(self, name: str, state: State, reason: str) -> None:
        """Say which state a study has come into, as the book has it."""
        self.tell(name, {"event": "state", "time": now(), "state": state, "reason": reason})
        self.wake()

    def tell(self, name: str, line: Mapping[str, Any]) -> None:
        """Put a line into a study's log."""
        try:
            with self._logs_lock:
                if name not in self._logs:
                    self._logs[name] = Log(self.folders.log(name))
                log = self._logs[name]
            log.append(line)
        except OSError as error:  # a trial must not fail because nobody can hear of it
            _log.warning("study %s: an event is lost: %s", name, error)

    # In the engine's own thread

    def _work(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self.failure = repr(error)
            _log.exception("the engine has ended")

    async def _main(self) -> None:
        self._loop, self._changed = asyncio.get_running_loop(), asyncio.Event()
        self._slots = Slots()
        try:
            while not self._stopping:
                self._changed.clear()
                try:
                    self._agree()
                except sa.exc.SQLAlchemyError as error:  # it may be back at the next look
                    _log.warning("the database does not answer: %s", error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), LOOK_S)
        finally:
            tasks = [each.task for each in self._tasks.values()]
            for each in self._tasks.values():
                each.end()
            if self._verifying is not None:
                tasks.append(self._verifying[1])
                self._verifying[1].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _agree(self) -> None:
        rows = {row.name: row for row in self._book.submissions()}
        for name, running in list(self._tasks.items()):
            row = rows.get(name)
            if running.task.done():
                del self._tasks[name]
                if not running.task.cancelled() and (error := running.task.exception()):
                    _log.error("study %s: its end could not be kept: %r", name, error)
            elif row is None or row.state != "running" or row.digest != running.submission.digest:
                running.end()
        self._verify(rows)  # first, or one study after another would have this machine
        self._begin(list(rows.values()))

    def _is_serving(self) -> bool:
        """Whether something that runs starts servers on this machine."""
        studies = any(each.submission.serves for each in self._tasks.values())
        return studies or (self._verifying is not None and self._verifying[0])

    def _begin(self, rows: Sequence[Submission]) -> None:
        """Begin what there is room for: first what ran when the service ended, then by whose turn it is."""
        left = [row for row in rows if row.state == "running" and row.name not in self._tasks]
        waiting = [row for row in rows if row.state == "queued" and row.name not in self._tasks]
        while len(self._tasks) < self._service.spec.parallel and (left or waiting):
            serving = self._is_serving()
            able = [row for row in left or waiting if not (row.serves and serving)]
            if left and not able:  # what goes on waits for this machine, and others need not
                left = []
                continue
            if not able:
                return
            row = min(able, key=self._turn) if not left else able[0]
            (left if row in left else waiting).remove(row)
            if row.state == "queued" and not self.change(row.name, "running", of=["queued"]):
                continue
            task = asyncio.create_task(self._run_one(row), name=row.name)
            task.add_done_callback(lambda _: self._changed.set() if self._changed else None)
            self._tasks[row.name] = _Running(row, task)

    def _turn(self, row: Submission) -> tuple[float, float, float]:
        """Whoever has least under way for what he is due, then the study that he puts first, then the oldest."""
        under_way = Counter(each.submission.user for each in self._tasks.values())
        return under_way[row.user] / self._weight_of(row.user), -row.priority, row.submitted_s

    def _weight_of(self, user: str) -> float:
        """What is due to a user; to one who is gone as much as to anybody."""
        return {each.name: each.priority for each in self._book.users()}.get(user, 1.0)

    async def _run_one(self, row: Submission) -> None:
        """A study from where it is to its end; the book is told, unless it says already that it should not run."""
        reason = ""
        try:
            study = await asyncio.to_thread(as_run, self.folders.submitted(row), self._service)
            stream = Stream(study)
            self.tell(row.name, stream.started())

            def report(event: Event) -> None:
                nonlocal reason
                if isinstance(event, StudyEnded):
                    reason = event.reason
                self.tell(row.name, stream(event))

            await self._run_within(study, row, report)
            result = await asyncio.to_thread(_result, study)
            self.tell(row.name, stream.line("result", **result))
            self.change(row.name, "done", of=["running"], reason=reason, digest=row.digest)
        except (UserError, WorkflowsError) as error:
            hint = f" ({error.hint})" if error.hint else ""
            self._failed(row, f"{error}{hint}")
        except Exception as error:
            _log.exception("study %s", row.name)
            self._failed(row, repr(error))

    async def _run_within(self, study: LoadedStudy, row: Submission, report: Report) -> None:
        """The run, ended where the study has spent its budget."""
        weight = row.priority * self._weight_of(row.user)
        assert self._slots is not None
        running = asyncio.ensure_future(self._run(study, self._slots, weight=weight, report=report))
        limit = asyncio.create_task(_broken_limit(study))
        try:
            await asyncio.wait([running, limit], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
                return
            report(StudyEnded(limit.result()))
        finally:
            for task in (running, limit):
                task.cancel()
            await asyncio.gather(running, limit, return_exceptions=True)

    def _failed(self, row: Submission, reason: str) -> None:
        self.change(row.name, "failed", of=["running"], reason=reason, digest=row.digest)

    def _verify(self, rows: Mapping[str, Submission]) -> None:
        """Begin the verification that is due longest, one at a time; its servers are those of its study."""
        if self._verifying is not None:
            task = self._verifying[1]
            if not task.done():
                return
            self._verifying = None
            if not task.cancelled() and (error := task.exception()):
                _log.error("a verification could not be kept: %r", error)
                return  # until the next look
        now_s = time.time()
        due = [
            each
            for each in self._book.verifications()
            if each.next_s is not None and each.next_s <= now_s and each.study in rows
        ]
        serving = self._is_serving()
        able = [each for each in due if not (serving and rows[each.study].serves)]
        if able:
            first = min(able, key=lambda each: each.next_s or 0.0)
            task = asyncio.create_task(self._verify_one(first))
            self._verifying = (rows[first.study].serves, task)

    async def _verify_one(self, due: Verification) -> None:
        file = self.folders.exports(due.study) / due.file
        share = Share(self._weight_of(due.user))
        assert self._slots is not None
        async with lent(file, self._slots, share):
            started_s = time.time()
            outcome, content = await measure_again(file, questions=due.questions)
        self._book.keep_result(due, started_s=started_s, outcome=outcome, content=content)
        line = {"event": "verified", "time": now(), "verification": due.id, "outcome": outcome}
        self.tell(due.study, line)


async def _broken_limit(study: LoadedStudy) -> str:
    """Returns once a limit of the study's budget is broken."""
    took_s = 0.0
    while True:
        await asyncio.sleep(max(LIMITS_S, took_s / MOST_LOOKING))
        began_s = time.perf_counter()
        try:
            broken = await asyncio.to_thread(exceeded, study)
        except sa.exc.SQLAlchemyError:  # the run has its own patience with the database
            broken = None
        took_s = time.perf_counter() - began_s
        if broken is not None:
            return broken


def _result(study: LoadedStudy) -> dict[str, Any]:
    store = open_results(study)
    try:
        return {"front": front_content(study, store), "recommended": recommended(study)}
    finally:
        store.close()
