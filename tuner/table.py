"""Recorded runs of many configs in one open file: what a study is replayed from, instead of running its agents again.

Apart from the store, which keeps one study while it runs and everything that was said: a table is written once, holds
figures only, and is read by anybody. docs/tables.md has the format, key by key.

JSON lines, compressed by gzip or not: a header, then every config, then a row for each config × question × repeat. It is
data only, and read as such: nothing in it names code, and its size is bounded before it is believed.
"""

import gzip
import hashlib
import io
import json
import zlib
from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Literal
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import ValidationError

from tuner.errors import DataError
from tuner.errors import UserError
from tuner.records import ExampleRun
from tuner.records import Reading
from tuner.tasks import Task
from tuner.tasks import TaskOptions
from tuner.tasks import load_task
from workflows.base import Checkpoint
from workflows.config import AgentConfig
from workflows.config import ModelSettings

FORMAT_VERSION = 1

MOST_BYTES = 2**29
"""A file that unpacks to more is refused: some 1.5 million rows, 80 times the quickstart's whole space."""

LONGEST_LINE = 2**22
"""Bytes of a line; the header names every question."""

REPLAYED = "replayed "
"""Before the source of every joule that comes from a table."""

_GZIP = b"\x1f\x8b"
_SHOWN = 80

Floats = npt.NDArray[np.float64]

Amount = Annotated[float, Field(ge=0, le=1e12)]
Count = Annotated[int, Field(ge=0, le=10**12)]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class RecordedTask(_Data):
    """What was asked."""

    name: str
    options: dict[str, Any] = Field(description="the other keys of the study's `task`")
    fingerprint: str = Field(description="changes when a question, an answer or the pack does")


class RecordedConfig(_Data):
    """A config that was run."""

    id: str = Field(description="AgentConfig.hash() of the three below")
    workflow: str
    model: str
    params: dict[str, bool | int | float | str]
    anytime: str | None = Field(
        description="the knob that is its budget in rounds, which checkpoints count"
    )
    energy_source: str = Field(description="where its joules come from: nvml-counter, …, none")
    energy_scope: str

    @property
    def config(self) -> AgentConfig:
        """The config itself."""
        return AgentConfig(workflow=self.workflow, model=self.model, params=self.params)

    @property
    def budget(self) -> int | None:
        """Its rounds; None for a workflow that does not work in rounds."""
        return None if self.anytime is None else int(self.params[self.anytime])


class Cost(_Data):
    """What an answer was worth and took, at the end or at a checkpoint; None is what is not known."""

    score: float | None = Field(
        ge=0, le=1, description="null where the answer would have taken a call that was not made"
    )
    latency_s: Amount
    energy_j: Amount | None
    tokens_in: Count | None
    tokens_out: Count | None
    tokens_cached: Count | None
    cost_usd: Amount | None
    llm_calls: Count
    tool_calls: Count
    llm_s: Amount
    tool_only_s: Amount


class _Round(_Data):
    budget: int = Field(ge=1)


class AtBudget(Cost, _Round):
    """What the run would have been, had its budget ended after this round."""


class _Asked(_Data):
    config: str
    example: str
    repeat: Count = 0


class Row(Cost, _Asked):
    """One question answered once."""

    score: float = Field(ge=0, le=1)
    error: str | None = None
    oracle: bool = False
    checkpoints: tuple[AtBudget, ...] = Field(
        default=(), description="rounds before the budget's last; none that the run did not reach"
    )


class _Open(BaseModel):
    """Holds what it names, and whatever else was known."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)


class Metered(_Open):
    """How a model's energy was measured."""

    source: str
    scope: str


class Ran(_Open):
    """How a model was served while it was measured."""

    settings: ModelSettings = Field(
        description="without its address, which is nobody else's business"
    )
    serve: dict[str, Any] | None = Field(
        description="how its server was started; null if it was not"
    )
    cache: str
    energy: Metered


class Provenance(_Open):
    """Where and with what the table was measured."""

    machine: str
    python: str
    versions: dict[str, str]
    models: dict[str, Ran]


class Header(_Data):
    """The first line: what all rows have in common."""

    format_version: Literal[1]
    study: str = Field(description="its name")
    recorded_on: str = Field(description="YYYY-MM-DD")
    task: RecordedTask
    search: tuple[str, ...] = Field(description="ids of the questions, in the order of the split")
    holdout: tuple[str, ...]
    search_space: dict[str, str] = Field(description="`name` and `fingerprint`")
    models: dict[str, dict[str, Any]] = Field(
        description="as the study's file has them, less addresses, meters and patience"
    )
    load: dict[str, Any]
    cache: str
    provenance: Provenance
    configs: Count = Field(description="lines of configs that follow")
    rows: Count = Field(description="lines of rows that follow those")

    @classmethod
    def read(cls, path: Path) -> "Header":
        """The header of a file, without the rest. Raises DataError."""
        return _parsed(cls, path, 1, _unpacked(path, LONGEST_LINE).partition(b"\n")[0])

    @property
    def questions(self) -> tuple[str, ...]:
        """All of them, those of the search before those of the holdout."""
        return (*self.search, *self.holdout)


@dataclass(frozen=True)
class Table:
    """A table in memory. `rows` are those of each recorded config, by its id."""

    header: Header
    recorded: Mapping[str, RecordedConfig]
    rows: Mapping[str, Sequence[Row]]
    _runs: dict[str, tuple[ExampleRun, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def read(cls, path: Path) -> "Table":
        """The table in a file. Raises DataError naming file, line and key for one that is missing, damaged or malformed."""
        return _read(Path(path))

    def write(self, path: Path) -> None:
        """Write it, compressed unless the name ends in `.jsonl`; the same table is the same bytes. Raises UserError."""
        content = self._content
        if path.suffix != ".jsonl":
            packed = io.BytesIO()
            # No name and no time: they would make two files of one table.
            with gzip.GzipFile("", "wb", 9, packed, mtime=0) as file:
                file.write(content)
            content = packed.getvalue()
        try:
            path.write_bytes(content)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written: {error.strerror}",
                hint="name a file in a folder that exists and may be written to",
            ) from None

    @cached_property
    def _content(self) -> bytes:
        parts = (
            [self.header],
            self.recorded.values(),
            (row for rows in self.rows.values() for row in rows),
        )
        lines = (_line(each) for part in parts for each in part)
        return "".join(lines).encode()

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change when anything in the table does."""
        return hashlib.sha256(self._content).hexdigest()[:16]

    @cached_property
    def configs(self) -> tuple[AgentConfig, ...]:
        """Those recorded, each followed by its smaller budgets at which every question's score is known."""
        found: dict[str, AgentConfig] = {}
        for recorded in self.recorded.values():
            found[recorded.id] = recorded.config
            for budget in range(1, recorded.budget or 1):
                if budget not in self._unknown[recorded.id]:
                    config = _at(recorded, budget)
                    found.setdefault(config.hash(), config)
        return tuple(found.values())

    def derived_from(self, config: AgentConfig) -> AgentConfig | None:
        """The recorded config from whose checkpoints this one is made; None for one that was recorded, or is not known."""
        found = self._find(config)
        return None if found is None or found.budget is None else found.recorded.config

    def runs(self, config: AgentConfig) -> tuple[ExampleRun, ...]:
        """What the table has of a config, in the order of the file; nothing of one that it lacks.

        A config at a smaller budget than recorded has what the checkpoints say, without the questions whose answer
        would have taken a call that was not made; a run that had ended sooner it has as it is. Answers and calls are
        not in a table: they are empty here.
        """
        key = config.hash()
        if key not in self._runs:
            found = self._find(config)
            self._runs[key] = () if found is None else tuple(self._made(found))
        return self._runs[key]

    def after(self, config: AgentConfig, budget: int) -> Mapping[tuple[str, int], Cost]:
        """What each answer by a config had taken after so many rounds, all of it where it had ended; by question and repeat."""
        source = self._find(config)
        if source is None:
            return {}
        until = budget if source.budget is None else min(budget, source.budget)
        rows = self.rows[source.recorded.id]
        return {
            (row.example, row.repeat): _Source(source.recorded, until).cost(row) for row in rows
        }

    def fields(
        self,
        configs: Sequence[AgentConfig],
        names: Sequence[str],
        *,
        questions: Sequence[str] | None = None,
        repeat: int = 0,
    ) -> Floats:
        """Figures of what `runs` gives as an array of (configs, questions, names), NaN where there is none.

        `names` are fields of ExampleRun; `questions` are ids, by default all of the table's in its order.
        """
        questions = self.header.questions if questions is None else questions
        place = {question: index for index, question in enumerate(questions)}
        found = np.full((len(configs), len(questions), len(names)), np.nan)
        for number, config in enumerate(configs):
            for run in self.runs(config):
                if run.repeat == repeat and run.example_id in place:
                    figures = [getattr(run, name) for name in names]
                    found[number, place[run.example_id]] = figures
        return found

    @cached_property
    def _families(self) -> Mapping[str, Sequence[RecordedConfig]]:
        """Configs that differ in their budget only, by what they share; the smallest budget first."""
        families: dict[str, list[RecordedConfig]] = defaultdict(list)
        for recorded in self.recorded.values():
            if recorded.anytime is not None:
                families[_family(recorded.config, recorded.anytime)].append(recorded)
        return {
            key: sorted(each, key=lambda one: one.budget or 0) for key, each in families.items()
        }

    @cached_property
    def _anytime(self) -> Mapping[str, str]:
        return {each.workflow: each.anytime for each in self.recorded.values() if each.anytime}

    @cached_property
    def _unknown(self) -> Mapping[str, frozenset[int]]:
        """By recorded config, the budgets at which a question's score is not known."""
        return {
            key: frozenset(
                each.budget for row in rows for each in row.checkpoints if each.score is None
            )
            for key, rows in self.rows.items()
        }

    def _find(self, config: AgentConfig) -> "_Source | None":
        """Where a config's figures are: its own rows, or those of a larger budget, the smallest that tells every score."""
        recorded = self.recorded.get(config.hash())
        if recorded is not None:
            return _Source(recorded, None)
        knob = self._anytime.get(config.workflow)
        if knob is None or not isinstance(config.params.get(knob), int):
            return None
        budget = int(config.params[knob])
        larger = [
            each
            for each in self._families.get(_family(config, knob), ())
            if (each.budget or 0) > budget
        ]
        known = [each for each in larger if budget not in self._unknown[each.id]] or larger
        return _Source(known[0], budget) if known else None

    def _made(self, source: "_Source") -> Iterator[ExampleRun]:
        recorded = source.recorded
        for row in self.rows[recorded.id]:
            cost = source.cost(row)
            if cost.score is None:
                continue
            yield ExampleRun(
                example_id=row.example,
                repeat=row.repeat,
                answer="",
                score=cost.score,
                error=row.error if cost is row else None,
                latency_s=cost.latency_s,
                energy=Reading(
                    cost.energy_j,
                    REPLAYED + recorded.energy_source,
                    recorded.energy_scope,
                    "the table has no joules for it" if cost.energy_j is None else None,
                    cost.latency_s,
                ),
                tokens_in=cost.tokens_in,
                tokens_out=cost.tokens_out,
                tokens_cached=cost.tokens_cached,
                cost_usd=cost.cost_usd,
                llm_calls=cost.llm_calls,
                tool_calls=cost.tool_calls,
                llm_s=cost.llm_s,
                tool_only_s=cost.tool_only_s,
                started_s=0.0,
                # What was answered then is not known here, and nobody is to take the whole run for it.
                checkpoints=tuple(
                    Checkpoint(each.budget, None, 0, each.latency_s) for each in source.before(row)
                ),
                spans=(),
                oracle=row.oracle,
            )


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a config's figures are: rows of a recorded config, and the checkpoints to take, where it is another's."""

    recorded: RecordedConfig
    budget: int | None

    def cost(self, row: Row) -> Row | AtBudget:
        """A row's figures at this budget; one that has no such checkpoint had ended by then."""
        return next((each for each in row.checkpoints if each.budget == self.budget), row)

    def before(self, row: Row) -> Iterator[AtBudget]:
        """A row's checkpoints below this budget."""
        for each in row.checkpoints:
            if self.budget is None or each.budget < self.budget:
                yield each


def _at(recorded: RecordedConfig, budget: int) -> AgentConfig:
    assert recorded.anytime is not None
    params = {**recorded.params, recorded.anytime: budget}
    return AgentConfig(workflow=recorded.workflow, model=recorded.model, params=params)


def _family(config: AgentConfig, anytime: str) -> str:
    params = {name: knob for name, knob in config.params.items() if name != anytime}
    return config.model_copy(update={"params": params}).hash()


def _line(data: _Data) -> str:
    content = data.model_dump(mode="json", exclude_defaults=isinstance(data, Row))
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"


def load_recorded_task(path: Path, name: str, options: TaskOptions, *, base: Path) -> Task:
    """A study's task with the questions of a table: the first `examples` are searched with, the last `holdout` confirm.

    Those recorded as a holdout come last; in a table without one, questions are held out that it was not searched
    with here. The rest of the options must be the table's. Raises DataError for what is no table, and UserError for
    another task, or for more questions than the table has.
    """
    header = Header.read(path)
    sizes = {"examples": len(header.search), "holdout": len(header.holdout)}
    task = load_task(name, options.model_copy(update=sizes), base=base)
    if task.fingerprint() != header.task.fingerprint:
        own = {"name": name, **options.model_dump(mode="json")}
        recorded = {"name": header.task.name, **header.task.options}
        differ = [
            f"{key} is {own.get(key)!r} here and was {recorded.get(key)!r}"
            for key in {**recorded, **own}
            if key not in sizes and own.get(key) != recorded.get(key)
        ]
        raise UserError(
            f"{path}: was recorded on another task: {'; '.join(differ) or 'its questions or its pack differ'}",
            hint="a table tells of its own questions only: give the study the task that was recorded",
        )
    questions = (*task.search, *task.holdout)
    if options.examples + options.holdout > len(questions):
        raise UserError(
            f"{path}: has {len(questions)} questions, and the study asks for {options.examples} examples and "
            f"{options.holdout} others to confirm with",
            hint="ask for fewer (task: examples, holdout)",
        )
    held_out = questions[len(questions) - options.holdout :]
    return replace(task, search=questions[: options.examples], holdout=held_out)


def _read(path: Path) -> Table:
    content = _unpacked(path, MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise DataError(
            f"{path}: unpacks to more than {MOST_BYTES // 2**20} MiB",
            hint="record fewer configs or questions: tables are data that anybody may have made, and large ones are refused",
        )
    lines = content.removesuffix(b"\n").split(b"\n")
    header = _parsed(Header, path, 1, lines[0])
    promised = 1 + header.configs + header.rows
    if len(lines) != promised:
        raise DataError(
            f"{path}: holds {len(lines)} lines, and its header promises {promised}: "
            f"itself, {header.configs} configs and {header.rows} rows",
            hint="it was cut off or changed: get it once more",
        )
    recorded: dict[str, RecordedConfig] = {}
    for number, line in enumerate(lines[1 : 1 + header.configs], 2):
        config = _parsed(RecordedConfig, path, number, line)
        _check_config(config, recorded, header, f"{path}: line {number}")
        recorded[config.id] = config
    rows: dict[str, list[Row]] = {key: [] for key in recorded}
    questions = frozenset(header.questions)
    seen: set[tuple[str, str, int]] = set()
    for number, line in enumerate(lines[1 + header.configs :], 2 + header.configs):
        row = _parsed(Row, path, number, line)
        wrong = _mistake(row, recorded, questions, seen)
        if wrong is not None:
            raise DataError(
                f"{path}: line {number}: {wrong}",
                hint="the table is damaged or was edited: write it again with tuner record STUDY --out FILE",
            )
        seen.add((row.config, row.example, row.repeat))
        rows[row.config].append(row)
    return Table(header, recorded, rows)


def _unpacked(path: Path, most: int) -> bytes:
    """The first `most` bytes of a file, unpacked. Raises DataError for one that cannot be read."""
    try:
        with path.open("rb") as file:
            compressed = file.read(len(_GZIP)) == _GZIP
        with gzip.open(path) if compressed else path.open("rb") as file:
            return file.read(most)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{path}: cannot be read: {reason}", hint="tuner record STUDY --out FILE writes one"
        ) from None


Line = TypeVar("Line", bound=_Data)


def _parsed(model: type[Line], path: Path, number: int, line: bytes) -> Line:
    if len(line) > LONGEST_LINE:
        raise DataError(
            f"{path}: line {number}: is longer than {LONGEST_LINE // 2**20} MiB",
            hint="the table is damaged or was edited: write it again with tuner record STUDY --out FILE",
        )
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    found = repr(first["input"])
    shown = found if len(found) <= _SHOWN else found[:_SHOWN] + "…"
    raise DataError(
        f"{path}: line {number}: {where + ': ' if where else ''}{first['msg']}; found {shown}",
        hint="the first line is a header, then come configs, then rows: docs/tables.md",
    )


def _check_config(config: RecordedConfig, known: Iterable[str], header: Header, place: str) -> None:
    if config.config.hash() != config.id:
        raise DataError(
            f"{place}: id: is {config.id}, and that of its config {config.config.hash()}",
            hint="the table is damaged or was edited: write it again with tuner record STUDY --out FILE",
        )
    if config.id in known:
        raise DataError(
            f"{place}: id: {config.id} stands on an earlier line too",
            hint="the table is damaged or was edited: write it again with tuner record STUDY --out FILE",
        )
    unserved = [name for name in config.config.models() if name not in header.provenance.models]
    if unserved:
        raise DataError(
            f"{place}: model: {unserved[0]} is none of the header's provenance.models",
            hint="the table is damaged or was edited: write it again with tuner record STUDY --out FILE",
        )
    knob = config.anytime
    if knob is not None and type(config.params.get(knob)) is not int:
        raise DataError(
            f"{place}: anytime: {knob} is no whole number among its params",
            hint="the table is damaged or was edited: write it again with tuner record STUDY --out FILE",
        )


def _mistake(
    row: Row,
    recorded: Mapping[str, RecordedConfig],
    questions: frozenset[str],
    seen: set[tuple[str, str, int]],
) -> str | None:
    """What is wrong with a row beside others, key first."""
    if row.config not in recorded:
        return f"config: {row.config!r} is none of the file's configs"
    if row.example not in questions:
        return f"example: {row.example!r} is none of the header's questions"
    if (row.config, row.example, row.repeat) in seen:
        return (
            f"repeat: {row.repeat} of {row.example} under this config stands on an earlier line too"
        )
    budgets = [each.budget for each in row.checkpoints]
    below = recorded[row.config].budget or 0
    if any(after <= this for this, after in pairwise([0, *budgets])):
        return f"checkpoints: their budgets do not ascend: {budgets}"
    if budgets and budgets[-1] >= below:
        return f"checkpoints: one at budget {budgets[-1]} is not below the config's own, {below}"
    return None
