"""The runs behind the points, packed small enough that a page of 200 trials can carry them.

Apart from the page: here is decided what of thousands of runs goes along when not all fit.

Three levels of detail, each a superset of the one before:

- `rows`: of every question the answer, score, latency, energy and tokens;
- `calls`: also when each call began and ended, with its tokens and joules: a timeline;
- `texts`: also what was said, prompt by prompt: a transcript.

1. Every trial gets its rows, in the order given: whoever comes first matters most.
2. The trials that matter get texts, each at most an equal part of the bytes left; a trial that needs more
   gets them for its first questions, and calls for the others where these fit.
3. The other trials get calls, while there are bytes left, and then texts in the same way.

A trial's block is JSON, deflated, in base64. Prompts of one trial repeat each other, and mostly farther back than deflate
looks: each text is kept as a reference to the one before it with which it has the most in common, and the rest.
"""

import base64
import json
import zlib
from bisect import bisect_left
from bisect import insort
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Literal

from tuner.measure.attribution import QueryEnergy
from tuner.measure.attribution import Stage
from tuner.measure.attribution import attribute_all
from tuner.measure.attribution import stages
from tuner.measure.latency import breakdown
from tuner.measure.latency import lacks_spans
from tuner.records import ExampleRun
from tuner.tasks import SPLITS
from tuner.tasks import Split
from workflows.trace import Span

ANSWER_CHARS = 500
"""Of an answer or an error in a row; a transcript has all of it."""

LEAST_COMMON = 40
"""Characters that two texts have in common, below which a reference saves nothing."""

LEAST_PART = 1000
"""Bytes to be had for a trial's texts, below which it is not tried."""

Detail = Literal["rows", "calls", "texts"]


@dataclass(frozen=True, slots=True)
class TrialRuns:
    """The runs of one trial, and those that kept the server full meanwhile, by split."""

    runs: Mapping[Split, Sequence[ExampleRun]]
    extras: Mapping[Split, Sequence[ExampleRun]]


@dataclass(frozen=True, slots=True)
class Block:
    """What a page carries of a trial's runs."""

    trial: int
    detail: Detail
    """The most that any of its runs has."""
    told: int
    """Runs with texts."""
    base64: str


Read = Callable[[int], TrialRuns]
"""The runs of the trial of that number."""


def make_blocks(
    read: Read, *, first: Sequence[int], others: Sequence[int], most_bytes: int
) -> tuple[Block, ...]:
    """Blocks of as many of the trials as fit, those that matter `first`; all blocks together have `most_bytes` at most."""
    blocks: dict[int, Block] = {}
    left = most_bytes

    def keep(block: Block | None) -> bool:
        nonlocal left
        if block is None:
            return False
        before = blocks.get(block.trial)
        grown = len(block.base64) - (0 if before is None else len(before.base64))
        if grown > left:
            return False
        blocks[block.trial] = block
        left -= grown
        return True

    for number in (*first, *others):
        keep(_pack(number, read(number), texts=0, calls=False))

    def tell(numbers: Sequence[int]) -> None:
        for place, number in enumerate(numbers):
            part = left // (len(numbers) - place)
            if number in blocks and part > LEAST_PART:
                room = len(blocks[number].base64) + part
                keep(_fitting(number, read(number), room))

    tell(first)
    for number in others:
        # Larger ones are not even packed once little is left: a timeline takes about as much as its rows.
        if number in blocks and left > len(blocks[number].base64):
            keep(_pack(number, read(number), texts=0, calls=True))
    tell(others)
    return tuple(blocks.values())


def _fitting(number: int, trial: TrialRuns, room: int) -> Block | None:
    """With texts for as many of the first questions as there is room for."""
    if all(lacks_spans(run) for runs in trial.runs.values() for run in runs):
        return None
    told = sum(map(len, trial.runs.values()))
    while told:
        block = _pack(number, trial, texts=told, calls=True)
        if len(block.base64) <= room:
            return block
        told = min(told - 1, int(told * room / len(block.base64)))
    block = _pack(number, trial, texts=0, calls=True)
    return block if len(block.base64) <= room else None


def _pack(number: int, trial: TrialRuns, *, texts: int, calls: bool) -> Block:
    """A trial's runs, the first `texts` of which have what was said."""
    shared = _Texts()
    told = texts
    content: dict[str, Any] = {}
    has_calls = False
    for split in SPLITS:
        runs = trial.runs.get(split, ())
        used = _used(runs, trial.extras.get(split, ())) if calls else ({}, {})
        rows = []
        for run in runs:
            row = _row(run)
            if calls and not lacks_spans(run):
                has_calls = True
                key = (run.example_id, run.repeat)
                own = used[1].get(key, ())
                row |= _calls(run, used[0].get(key), own, shared if told > 0 else None)
            told -= 1
            rows.append(row)
        content[split] = rows
    content["texts"] = shared.kept
    detail: Detail = "texts" if texts and has_calls else "calls" if has_calls else "rows"
    return Block(number, detail, texts if has_calls else 0, deflated(content))


def deflated(content: Any) -> str:
    """Plain JSON as the page has it: deflated, in base64, so that nothing in it can be taken for markup."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode(), level=9)).decode()


def _row(run: ExampleRun) -> dict[str, Any]:
    return {
        "id": run.example_id,
        "repeat": run.repeat,
        "answer": _cut(run.answer),
        "score": round(run.score, 4),
        "error": None if run.error is None else _cut(run.error),
        "latency_s": _seconds(run.latency_s),
        "energy_j": _joules(run.energy_j),
        "tokens": [run.tokens_in, run.tokens_out, run.tokens_cached],
        "calls": [run.llm_calls, run.tool_calls],
    }


def _used(
    runs: Sequence[ExampleRun], extras: Sequence[ExampleRun]
) -> tuple[Mapping[tuple[str, int], QueryEnergy], dict[tuple[str, int], tuple[Stage, ...]]]:
    windows = defaultdict(list)
    for run in (*runs, *extras):
        windows[run.window].append(run)
    staged = {key: own for window in windows.values() for key, own in stages(window).items()}
    return attribute_all((*runs, *extras)), staged


def _calls(
    run: ExampleRun, used: QueryEnergy | None, own: Sequence[Stage], texts: "_Texts | None"
) -> dict[str, Any]:
    """What the run did when, and what each part of it used; what was said where `texts` takes it."""
    parts = breakdown(run)
    assert parts is not None  # it has spans
    joules = _by_part(run, own)
    return {
        "spans": [_span(span, _of_span(run, span, own), texts) for span in run.spans],
        "told": texts is not None,
        "parts": [
            ["model", _seconds(parts.llm_only_s), joules.get("model")],
            ["model and tools at once", _seconds(parts.overlap_s), joules.get("overlap")],
            ["tools", _seconds(parts.tool_only_s), joules.get("tool")],
            ["neither", _seconds(parts.other_s), None],
        ],
        "checkpoints": [
            [
                point.budget,
                None if point.answer is None else _cut(point.answer),
                _seconds(point.elapsed_s),
            ]
            for point in run.checkpoints
        ],
        "used_j": None if used is None else _joules(used.joules),
        "reused_s": _seconds(run.reused.latency_s),
        "source": run.energy.source,
    }


def _span(span: Span, joules: float | None, texts: "_Texts | None") -> dict[str, Any]:
    found = {
        "kind": span.kind,
        "name": span.name,
        "start_s": _seconds(span.start_s),
        "end_s": _seconds(span.end_s),
        "energy_j": _joules(joules),
    }
    if span.kind == "llm":
        found["tokens"] = [span.tokens_in, span.tokens_out, span.tokens_cached]
        found["ttft_s"] = None if span.ttft_s is None else _seconds(span.ttft_s)
    if span.error is not None:
        found["error"] = _cut(span.error)
    if span.attempt > 1:
        found["attempt"] = span.attempt
    if span.speculative:
        found["guess"] = True
    if texts is not None:
        found["said"] = [texts.place(span.input), texts.place(span.output)]
    return found


def _in_flight(run: ExampleRun, stage: Stage) -> list[Span]:
    return [s for s in run.new_spans if s.start_s < stage.end_s and s.end_s > stage.start_s]


def _of_span(run: ExampleRun, span: Span, own: Sequence[Stage]) -> float | None:
    """A call's joules: in each stage an equal part of what the calls of its kind used, as `attribution` shares them."""
    if not own or span not in run.new_spans:
        return None
    total = 0.0
    for stage in own:
        if span.start_s < stage.end_s and span.end_s > stage.start_s:
            alike = [each for each in _in_flight(run, stage) if each.kind == span.kind]
            total += (stage.llm_j if span.kind == "llm" else stage.tool_j) / len(alike)
    return total


def _by_part(run: ExampleRun, own: Sequence[Stage]) -> dict[str, float | None]:
    """Joules by what was in flight, `model`, `tool` or `overlap`; none where a part of the run was another's."""
    if not own or run.reused.latency_s > 0:
        return {}
    sums = dict.fromkeys(("model", "tool", "overlap"), 0.0)
    for stage in own:
        kinds = {span.kind for span in _in_flight(run, stage)}
        part = "overlap" if len(kinds) == 2 else "model" if "llm" in kinds else "tool"
        sums[part] += stage.llm_j + stage.tool_j
    return {part: _joules(joules) for part, joules in sums.items()}


class _Texts:
    """Texts, each once, as (place of an earlier one, UTF-16 units in common from its beginning, the rest)."""

    def __init__(self) -> None:
        self.kept: list[tuple[int, int, str]] = []
        self._places: dict[str, int] = {}
        self._ordered: list[str] = []

    def place(self, text: str) -> int:
        """Where the text is kept; it is now, if it was not."""
        if text not in self._places:
            # Of all texts in order, one of the two neighbours has the longest beginning in common.
            where = bisect_left(self._ordered, text)
            neighbours = self._ordered[max(0, where - 1) : where + 1]
            common, nearest = max(
                ((_common(text, each), each) for each in neighbours), default=(0, "")
            )
            if common < LEAST_COMMON:
                self.kept.append((0, 0, text))
            else:
                # The page counts as JavaScript does.
                units = len(text[:common].encode("utf-16-le", "surrogatepass")) // 2
                self.kept.append((self._places[nearest], units, text[common:]))
            self._places[text] = len(self.kept) - 1
            insort(self._ordered, text)
        return self._places[text]


def _common(text: str, other: str) -> int:
    """Characters that both begin with; by halves, since comparing slices is fast and comparing characters is not."""
    low, high = 0, min(len(text), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if text[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _cut(text: str) -> str:
    return text if len(text) <= ANSWER_CHARS else f"{text[:ANSWER_CHARS]}…"


def _seconds(value: float) -> float:
    return round(value, 5)


def _joules(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
