"""The file of a service as frozen, validated data: where it keeps things, where it listens, what its studies may use.

Apart from a study's file, whose models it writes alike: what stands here belongs to the machine, not to a question.
"""

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from tuner.measure import MeterSpec
from tuner.serving import Addressed
from tuner.serving import ModelSpec
from tuner.serving import Served
from tuner.source import Source
from tuner.spec import Executor
from tuner.spec import Replay
from tuner.spec import storage_url

PORT = 8090

MEGABYTE = 1 << 20


class ServiceSpec(BaseModel):
    """A service's file. Paths and SQLite files in it are relative to it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    format_version: Literal[1]
    storage: str = Field(
        default="sqlite:///tuner-service.db",
        min_length=1,
        description="the database of all studies, users and verifications",
    )
    folder: str = Field(
        default="tuner-service",
        min_length=1,
        description="where files that were submitted, logs and exports are kept",
    )
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="address to listen on; any but a loopback one needs users with tokens",
    )
    port: int = Field(default=PORT, ge=0, le=65535, description="0 takes any free one")
    models: dict[str, ModelSpec] = Field(
        min_length=1, description="what studies may use, as a study's file has it"
    )
    executor: Executor = Field(
        default="local", description="where evaluations run, as a study's file has it"
    )
    parallel: int = Field(
        default=4, ge=1, le=64, description="studies that run at once; the others wait"
    )
    largest_upload_mb: int = Field(
        default=64, ge=1, le=4096, description="of one submission, as it is sent"
    )


class LoadedService(BaseModel):
    """A service's file with what it points to."""

    model_config = ConfigDict(frozen=True)

    path: Path
    spec: ServiceSpec
    storage_url: str

    @property
    def folder(self) -> Path:
        """Where what was submitted is kept."""
        return (self.path.parent / self.spec.folder).absolute()

    @property
    def listens_to_others(self) -> bool:
        """Whether other machines can ask."""
        return not is_loopback(self.spec.host)

    def executor(self) -> Any:
        """Where evaluations run, as a study's file would have it."""
        return self.spec.model_dump(mode="json", include={"executor"})["executor"]

    def models(self) -> Mapping[str, dict[str, Any]]:
        """The catalogue as a study's file would have it, in whatever folder that stood."""
        base = self.path.parent.absolute()
        return {name: _anywhere(model, base) for name, model in self.spec.models.items()}


def load_service(path: Path) -> LoadedService:
    """A service's file. Raises SpecError that says file, line, key and what is allowed."""
    source = Source.read(path)
    spec = source.validate(ServiceSpec)
    url = storage_url(source, spec.storage)
    if isinstance(spec.executor, Replay):
        raise source.error(
            ("executor",),
            "a table answers for one study, not for a service",
            hint="leave it out; a study that is submitted may name a table",
        )
    return LoadedService(path=path, spec=spec, storage_url=url)


def is_loopback(host: str) -> bool:
    """Whether only this machine can ask there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _anywhere(model: Served | Addressed, base: Path) -> dict[str, Any]:
    """A model as plain data, with absolute paths for the files beside the service's own."""
    content = model.model_dump(mode="json", exclude_defaults=True)
    if isinstance(model, Served):
        content["serve"] = model.serve
        for key in ("weights", "model"):
            given = content.get(key)
            if isinstance(given, str) and (base / given).exists():
                content[key] = str((base / given).resolve())
    return _metered_anywhere(content, base)


def _metered_anywhere(content: dict[str, Any], base: Path) -> dict[str, Any]:
    for each in (content, *content.get("endpoints", ())):
        meter = each.get("meter")
        if isinstance(meter, dict) and "replay" in meter:
            each["meter"] = MeterSpec.model_validate(
                {"replay": str((base / meter["replay"]).absolute())}
            ).model_dump(mode="json")
    return content
