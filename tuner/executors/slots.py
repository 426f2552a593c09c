"""Who may use what now: servers, workers and metered devices, each lent to one evaluation at a time.

Apart from the executors, which know what an evaluation needs: here are only names, whoever waits for them, and whose turn
it is. One process has one `Slots` for all the studies that it runs, so that they share what they have in common.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Generic
from typing import Protocol
from typing import TypeVar

PASSED_OVER = 20
"""How often others may be lent something before whoever waits longest has what it needs kept for it."""


class Needs(Protocol):
    """What an evaluation was found to need."""

    @property
    def keys(self) -> frozenset[str]:
        """The names of all of it."""
        ...


N = TypeVar("N", bound=Needs)

IsFree = Callable[[str], bool]

Choose = Callable[[IsFree], N | None]
"""What to use, given what is free; None where that is not enough."""


class Share:
    """A study's part in slots: how much of them it is due, and what it has had."""

    def __init__(self, weight: float = 1.0) -> None:
        """Of two that always wait, one of twice the weight has slots for twice the time."""
        self.weight = weight
        self.paid_s = 0.0
        """Seconds of slots that it has had, divided by its weight, on the clock of all shares."""
        self.running = 0
        self.waiting = 0
        self._busy_s = 0.0
        self._busy_since: float | None = None

    def busy_s(self) -> float:
        """Seconds during which something of it was under way, however much at once."""
        since = self._busy_since
        return self._busy_s + (0.0 if since is None else time.perf_counter() - since)

    def began(self) -> None:
        """One more is under way."""
        self.running += 1
        if self._busy_since is None:
            self._busy_since = time.perf_counter()

    def ended(self, took_s: float) -> None:
        """One less is, after so long."""
        self.paid_s += took_s / self.weight
        self.running -= 1
        if not self.running and self._busy_since is not None:
            self._busy_s += time.perf_counter() - self._busy_since
            self._busy_since = None


@dataclass(eq=False)
class _Waiter(Generic[N]):
    share: Share
    number: int
    choose: Choose[N]
    granted: "asyncio.Future[N]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    passed_over: int = 0


class Slots:
    """Names that are free, lent or away; to be used on one event loop."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._lent: set[str] = set()
        self._away: set[str] = set()
        self._waiting: list[_Waiter[Any]] = []
        self._shares: set[Share] = set()
        self._count = 0
        self._changed = asyncio.Event()

    def join(self, share: Share) -> None:
        """Take part from now on: what others have had so far is not to be caught up with."""
        share.paid_s = min((each.paid_s for each in self._shares), default=0.0)
        self._shares.add(share)

    def leave(self, share: Share) -> None:
        """Take part no more."""
        self._shares.discard(share)

    def add(self, *keys: str) -> None:
        """Lend these from now on; what was away is back."""
        self._known.update(keys)
        self._away.difference_update(keys)
        self._grant()

    def withdraw(self, *keys: str) -> None:
        """Lend these to nobody until they are added again."""
        self._away.update(keys)

    def is_free(self, key: str) -> bool:
        """Whether it is there, and nobody has it."""
        return key in self._known and key not in self._lent and key not in self._away

    def is_there(self, key: str) -> bool:
        """Whether it is lent at all at the moment."""
        return key in self._known and key not in self._away

    @property
    def used(self) -> tuple[int, int]:
        """How many are lent, and how many are there."""
        return len(self._lent), len(self._known - self._away)

    def is_waited_for_beside(self, share: Share) -> bool:
        """Whether others than this one wait for something."""
        return any(waiter.share is not share for waiter in self._waiting)

    @asynccontextmanager
    async def lend(self, share: Share, choose: Choose[N]) -> AsyncIterator[N]:
        """What `choose` takes of what is free, once it is this share's turn and there is enough; back after the block."""
        chosen = await self._wait(share, choose)
        async with self._lent_to(share, chosen):
            yield chosen

    def lend_now(self, share: Share, choose: Choose[N]) -> N | None:
        """The same at once, where nobody waits for anything; to be given back by `give_back`."""
        chosen = None if self._waiting else choose(self.is_free)
        if chosen is not None:
            self._take(share, chosen)
        return chosen

    def give_back(self, share: Share, chosen: Needs, took_s: float) -> None:
        """Let others have it."""
        self._lent -= chosen.keys
        share.ended(took_s)
        self._grant()

    def change(self) -> Coroutine[Any, Any, object]:
        """Until something is given back or added from now on, whenever it is awaited."""
        return self._changed.wait()

    @asynccontextmanager
    async def _lent_to(self, share: Share, chosen: Needs) -> AsyncIterator[None]:
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self.give_back(share, chosen, time.perf_counter() - began_s)

    async def _wait(self, share: Share, choose: Choose[N]) -> N:
        self._count += 1
        waiter = _Waiter(share, self._count, choose)
        self._waiting.append(waiter)
        share.waiting += 1
        self._grant()
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            if waiter.granted.done() and not waiter.granted.cancelled():
                self.give_back(share, waiter.granted.result(), 0.0)
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                share.waiting -= 1

    def _take(self, share: Share, chosen: Needs) -> None:
        self._lent |= chosen.keys
        share.began()

    def _grant(self) -> None:
        """Lend what is free to those whose turn it is; whoever has to wait for more lets others by, for a while."""
        kept: set[str] = set()

        def is_free(key: str) -> bool:
            return self.is_free(key) and key not in kept

        for waiter in sorted(self._waiting, key=lambda each: (each.share.paid_s, each.number)):
            if waiter.granted.done():  # it was cancelled, and has not come to say so
                continue
            chosen = waiter.choose(is_free)
            if chosen is None:
                if waiter.passed_over >= PASSED_OVER:
                    wanted = waiter.choose(self.is_there)
                    kept.update(() if wanted is None else wanted.keys)
                continue
            self._waiting.remove(waiter)
            waiter.share.waiting -= 1
            self._take(waiter.share, chosen)
            waiter.granted.set_result(chosen)
            for other in self._waiting:
                other.passed_over += other.number < waiter.number
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
