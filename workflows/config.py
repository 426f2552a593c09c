"""AgentConfig, the one artifact that is sampled, evaluated, exported and deployed, and the file that carries it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import ValidationError

from workflows.agent_pack import AgentPack
from workflows.agent_pack import Document
from workflows.agent_pack import Product
from workflows.errors import ConfigError
from workflows.yaml_data import read_text
from workflows.yaml_data import read_yaml

FORMAT_VERSION = 1

ACTOR = "actor"
"""What a role is set to when the config's own model plays it."""

ROLE = "_model"
"""How the names of the knobs end that give a role to a model."""

Knob = bool | int | float | str


_BESIDE: Mapping[str, type[BaseModel]] = {"documents": Document, "products": Product}
"""The parts of a pack that may hold thousands of items: JSON lines beside the agent's file."""


class AgentConfig(BaseModel):
    """Which workflow answers, on which model, with which params."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    workflow: str
    model: str = Field(description="a name from the study's `models`")
    params: dict[str, Knob] = Field(default_factory=dict)

    def hash(self) -> str:
        """16 hex digits that are equal exactly when two configs mean the same: the key under which results are kept.

        Numbers count by value, so 0 and 0.0 are one; True and 1 are two, as no param takes both.
        """
        params = {name: _by_value(knob) for name, knob in self.params.items()}
        text = json.dumps({**self.model_dump(), "params": params}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def models(self) -> tuple[str, ...]:
        """Every model that the config uses, once: its own, then those that have a role."""
        roles = [str(knob) for name, knob in self.params.items() if name.endswith(ROLE)]
        return tuple(dict.fromkeys([self.model, *(role for role in roles if role != ACTOR)]))

    @property
    def oracle(self) -> bool:
        """Whether the agent is told when its answer is right, which nobody can do in deployment."""
        return any(
            knob == "oracle" for name, knob in self.params.items() if _last(name) == "feedback"
        )


def _last(name: str) -> str:
    """The knob's own name: a workflow within another has its knobs under a name of its own."""
    return name.rpartition(".")[2]


def _by_value(knob: Knob) -> Knob:
    return int(knob) if isinstance(knob, float) and knob.is_integer() else knob


def without_secret(address: str) -> str:
    """An address as it stands in files. Raises ValueError for one that holds a name or a password."""
    try:
        secret = "@" in urlsplit(address).netloc
    except ValueError:
        return address  # whoever calls it says what is wrong with it
    if secret:
        raise ValueError("holds a password, which belongs in no file; give a key by the environment: api_key_env")  # fmt: skip
    return address


Address = Annotated[str, AfterValidator(without_secret)]
"""Where a server is, without what lets one in."""


class ModelSettings(BaseModel):
    """How a model is reached, in litellm's terms. Secrets stay in the environment: only a variable's name stands here."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str = Field(
        description="litellm's name: hosted_vllm/…, openai/…, anthropic/…", min_length=1
    )
    api_base: Address | None = None
    api_key_env: str | None = Field(
        default=None, description="environment variable that holds the key"
    )
    endpoint: Literal["chat", "completion"] = Field(
        default="chat",
        description="completion: the text as it stands, to an OpenAI-compatible server",
    )
    grammar: Literal["none", "llama.cpp", "vllm"] = Field(
        default="none", description="whose way of asking for a GBNF grammar the server understands"
    )
    json_schema: bool = Field(
        default=False, description="whether the server holds replies to a JSON schema"
    )
    reuse_connections: bool = Field(
        default=True,
        description="on a completion endpoint; llama.cpp drops some that are reused at once",
    )
    timeout_s: float = Field(default=120.0, gt=0, description="for one try of one call")
    max_retries: int = Field(default=2, ge=0, le=10)


class Sidecar(BaseModel):
    """A file of JSON lines beside an agent's, by name and content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(pattern=r"^[^/\\]+$")
    sha256: str


class ExportedModel(BaseModel):
    """A model of an exported agent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: ModelSettings
    serve: dict[str, Any] | None = Field(
        default=None, description="how the tuner started the model's server; None if it did not"
    )


class AgentFile(BaseModel):
    """An exported agent: everything that `workflows.load` needs, and where it came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1]
    config: AgentConfig
    models: dict[str, ExportedModel] = Field(description="those that the config names")
    pack: AgentPack
    beside: dict[str, Sidecar] = Field(
        default_factory=dict, description="parts of the pack that are kept in files of their own"
    )
    provenance: dict[str, Any] = Field(default_factory=dict)


_SHOWN = 200
"""Characters of what was given."""

_HOW = "write one with: tuner export STUDY --rule knee --out FILE"


class _Dumper(yaml.SafeDumper):
    """Plain YAML, in which what is a tuple stands in one line."""


_Dumper.add_representer(
    tuple,
    lambda dumper, row: dumper.represent_sequence("tag:yaml.org,2002:seq", row, flow_style=True),
)

_HEAD = """\
# An agent as `tuner` measured it. It answers by `tuner ask FILE QUESTION`, behind an API by `tuner serve FILE`,
# and in Python by `workflows.load(FILE)`. Keys are not in here: `api_key_env` names the variables that hold them.
"""


def dump_agent_file(agent: AgentFile, path: Path, *, beside_as: str | None = None) -> None:
    """Write an agent as YAML, and long parts of its pack as JSON lines beside it (`best.documents.jsonl`).

    Files that share these parts share them by a name in place of their own: `beside_as`.
    """
    pack = agent.pack
    beside: dict[str, Sidecar] = {}
    for part in _BESIDE:
        items: tuple[BaseModel, ...] = getattr(pack, part)
        if not items:
            continue
        lines = "".join(
            json.dumps(item.model_dump(mode="json"), ensure_ascii=False) + "\n" for item in items
        ).encode()
        file = path.with_name(f"{beside_as or path.stem}.{part}.jsonl")
        file.write_bytes(lines)
        beside[part] = Sidecar(file=file.name, sha256=hashlib.sha256(lines).hexdigest())
    agent = agent.model_copy(update={"beside": beside})
    content = agent.model_dump(mode="json", exclude_none=True)
    for part in _BESIDE:
        content["pack"].pop(part)  # they stand beside, or there are none
    content["provenance"] = agent.provenance  # None in it means missing, and stays
    # Not allow_unicode: PyYAML then writes some line separators raw and reads them back as spaces.
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100)
    path.write_text(_HEAD + text, encoding="utf-8")


def load_agent_file(path: Path) -> AgentFile:
    """Read what `dump_agent_file` wrote. Raises ConfigError naming file and key."""
    try:
        content = read_yaml(read_text(path))
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}",
            hint="is the path right? tuner export STUDY --rule knee --out FILE writes one",
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: not YAML: {error}",
            hint="write it again with: tuner export STUDY --rule knee --out FILE",
        ) from None
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        given = "" if version is None else f" (given: {repr(version)[:_SHOWN]})"
        raise ConfigError(
            f"{path}: format_version: not an exported agent of version {FORMAT_VERSION}{given}",
            hint=_HOW,
        )
    try:
        agent = AgentFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "missing":
            raise ConfigError(f"{path}: {where}: is missing, as in no exported agent", hint=_HOW) from None  # fmt: skip
        if first["type"] == "value_error":  # what was given may be a secret
            raise ConfigError(f"{path}: {where}: {first['ctx']['error']}", hint=_HOW) from None
        given = repr(first["input"])
        shown = given if len(given) <= _SHOWN else f"{given[:_SHOWN]}…"
        raise ConfigError(f"{path}: {where}: {first['msg']} (given: {shown})", hint=_HOW) from None
    missing = [name for name in agent.config.models() if name not in agent.models]
    if missing:
        raise ConfigError(
            f"{path}: models: lacks {missing[0]!r}, which the config uses",
            hint="write it again with: tuner export STUDY --rule knee --out FILE",
        )
    parts = {}
    for part, sidecar in agent.beside.items():
        if part not in _BESIDE:
            raise ConfigError(
                f"{path}: beside.{part}: unknown part", hint=f"known: {', '.join(_BESIDE)}"
            )
        parts[part] = _load_items(path.parent / sidecar.file, sidecar.sha256, _BESIDE[part])
    return agent.model_copy(update={"pack": agent.pack.model_copy(update=parts)})


def _load_items(path: Path, sha256: str, kind: type[BaseModel]) -> tuple[BaseModel, ...]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}",
            hint="an exported agent needs the files beside it that were written with it",
        ) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ConfigError(
            f"{path}: is not the file that was exported (sha256 differs)",
            hint="copy it again from where it was exported, or export anew: tuner export STUDY --rule knee --out FILE",
        )
    try:
        return tuple(kind.model_validate_json(line) for line in content.splitlines())
    except ValidationError as error:
        raise ConfigError(
            f"{path}: {error.errors()[0]['msg']}",
            hint="write it again with: tuner export STUDY --rule knee --out FILE",
        ) from None
