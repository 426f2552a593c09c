"""Joules of the queries under way, while a meter counts and queries come and go.

Apart from `measure.window`, which keeps every sample of a pass that ends, to split it afterwards: a server does not end,
so what was counted is shared out as it comes, and only sums are kept.
"""

import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tuner.measure import Meter
from tuner.measure import between
from tuner.measure.window import PERIOD_S


@dataclass(slots=True, eq=False)
class _Query:
    start_s: float
    end_s: float | None = None
    joules: float | None = 0.0


class Energy:
    """Shares what a meter counts among the queries under way, by how long each was so, for as long as the context lasts.

    `query_j` hears of the joules of each query, up to two periods after it has ended, and of none where part of its time
    could not be metered; `idle_j` of what was used while there were no queries. Both are called in another thread.
    """

    def __init__(
        self,
        meter: Meter,
        *,
        query_j: Callable[[float], None],
        idle_j: Callable[[float], None],
        period_s: float = PERIOD_S,
    ) -> None:
        self._meter = meter
        self._query_j = query_j
        self._idle_j = idle_j
        # A count that moves seldom says nothing of shorter stretches.
        self._period_s = max(period_s, 2 * meter.tick_s)
        self._lock = threading.Lock()
        self._queries: list[_Query] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._count, name="tuner-energy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    @contextmanager
    def query(self) -> Iterator[None]:
        """A query is under way within."""
        query = _Query(time.perf_counter())
        with self._lock:
            self._queries.append(query)
        try:
            yield
        finally:
            query.end_s = time.perf_counter()

    def _count(self) -> None:
        self._meter.read()  # what was used while nobody read may be unknown: this is where that is said
        last = self._meter.read()
        while not self._stop.wait(self._period_s):
            now = self._meter.read()
            self._share(between(self._meter, last, now).gross_j, last.t_s, now.t_s)
            last = now

    def _share(self, joules: float | None, start_s: float, end_s: float) -> None:
        with self._lock:
            queries = [each for each in self._queries if each.start_s < end_s]
            overlaps = [_overlap_s(each, start_s, end_s) for each in queries]
            # What no query covers is idle; where several are under way at once, each has its part.
            whole = max(end_s - start_s, sum(overlaps))
            for query, overlap in zip(queries, overlaps, strict=True):
                known = joules is not None and query.joules is not None
                query.joules = (query.joules or 0.0) + (joules or 0.0) * overlap / whole if known else None  # fmt: skip
            ended = [each for each in queries if each.end_s is not None and each.end_s <= end_s]
            self._queries = [each for each in self._queries if each not in ended]
        if joules is not None and sum(overlaps) < whole:
            self._idle_j(joules * (1 - sum(overlaps) / whole))
        for query in ended:
            if query.joules is not None:
                self._query_j(query.joules)


def _overlap_s(query: _Query, start_s: float, end_s: float) -> float:
    end = end_s if query.end_s is None else min(query.end_s, end_s)
    return max(0.0, end - max(query.start_s, start_s))
