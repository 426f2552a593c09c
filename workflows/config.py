"""AgentConfig, the one artifact that is sampled, evaluated, exported and deployed, and the file that carries it."""

import hashlib
import json
from pathlib import Path
from typing import Any
from typing import Literal

import yaml
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import ValidationError

from workflows.agent_pack import AgentPack
from workflows.agent_pack import Document
from workflows.errors import ConfigError

FORMAT_VERSION = 1

Knob = bool | int | float | str


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


def _by_value(knob: Knob) -> Knob:
    return int(knob) if isinstance(knob, float) and knob.is_integer() else knob


class ModelSettings(BaseModel):
    """How a model is reached, in litellm's terms. Secrets stay in the environment: only a variable's name stands here."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str = Field(
        description="litellm's name: hosted_vllm/…, openai/…, anthropic/…", min_length=1
    )
    api_base: str | None = None
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


class AgentFile(BaseModel):
    """An exported agent: everything that `workflows.load` needs, and where it came from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1]
    config: AgentConfig
    model: ModelSettings
    serve: dict[str, Any] | None = Field(
        default=None, description="how the tuner started the model's server; None if it did not"
    )
    pack: AgentPack
    documents_file: str | None = Field(
        default=None,
        pattern=r"^[^/\\]+$",
        description="JSON lines beside this file, one document each",
    )
    documents_sha256: str | None = None
    provenance: dict[str, Any] = Field(default_factory=dict)


def dump_agent_file(agent: AgentFile, path: Path) -> None:
    """Write an agent as YAML, its documents as JSON lines beside it (`best.yaml`, `best.documents.jsonl`)."""
    pack = agent.pack
    if pack.documents:
        lines = "".join(
            json.dumps(document.model_dump(), ensure_ascii=False) + "\n"
            for document in pack.documents
        ).encode()
        beside = path.with_suffix(".documents.jsonl")
        beside.write_bytes(lines)
        agent = agent.model_copy(
            update={
                "pack": pack.model_copy(update={"documents": ()}),
                "documents_file": beside.name,
                "documents_sha256": hashlib.sha256(lines).hexdigest(),
            }
        )
    content = agent.model_dump(mode="json", exclude_none=True)
    content["pack"].pop("documents")  # they stand beside, or there are none
    content["provenance"] = agent.provenance  # None in it means missing, and stays
    # Not allow_unicode: PyYAML then writes some line separators raw and reads them back as spaces.
    text = yaml.safe_dump(content, sort_keys=False, width=100)
    path.write_text(text, encoding="utf-8")


def load_agent_file(path: Path) -> AgentFile:
    """Read what `dump_agent_file` wrote. Raises ConfigError naming file and key."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        given = "" if version is None else f" (given: {version!r})"
        raise ConfigError(
            f"{path}: format_version: not an exported agent of version {FORMAT_VERSION}{given}",
            hint="write one with: tuner export STUDY --rule knee --out FILE",
        )
    try:
        agent = AgentFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg']} (given: {first['input']!r})") from None
    if agent.documents_file is None:
        return agent
    documents = _load_documents(path.parent / agent.documents_file, agent.documents_sha256)
    return agent.model_copy(update={"pack": agent.pack.model_copy(update={"documents": documents})})


def _load_documents(path: Path, sha256: str | None) -> tuple[Document, ...]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}",
            hint="an exported agent needs its documents file beside it",
        ) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ConfigError(f"{path}: is not the documents file that was exported (sha256 differs)")
    try:
        return tuple(Document.model_validate_json(line) for line in content.splitlines())
    except ValidationError as error:
        raise ConfigError(f"{path}: not documents: {error.errors()[0]['msg']}") from None
