"""What may be submitted, and how it is run: a bundle's study with the service's models, database and executor in the place of its own.

Apart from `bundle`, which keeps files in their folder: here is what a study may say in a service. Nothing of it is
imported or opened before it is known to lie in the bundle.
"""

import re
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic import ConfigDict

from tuner.bundle import LONGEST_NAME
from tuner.bundle import Bundle
from tuner.bundle import named_files
from tuner.errors import SpecError
from tuner.errors import UserError
from tuner.service.spec import LoadedService
from tuner.serving import PATIENCE
from tuner.serving import Addressed
from tuner.serving import ModelSpec
from tuner.serving import Served
from tuner.source import Source
from tuner.spec import LoadedStudy
from tuner.spec import StudySpec
from tuner.spec import load_study
from tuner.tasks import Task

AS_RUN = "as-run.yaml"
"""The study as the service runs it, beside the file that was submitted."""

LARGEST_TEXT = 1 << 20
"""Bytes of a study's file, and of a search space."""

_STUDY_NAME = re.compile(r"\w[\w.-]*")


class _Asked(BaseModel):
    """The models that a study asks for."""

    model_config = ConfigDict(extra="ignore")

    models: dict[str, ModelSpec]


def admit(
    bundle: Bundle, folder: Path, service: LoadedService, *, allow_custom: bool = False
) -> tuple[LoadedStudy, Task]:
    """Write a bundle into a folder and load its study as it would be run, with its task. Raises UserError that says what it may not."""
    try:
        _require_small(bundle, bundle.study, "the study's file")
        submitted = bundle.write(folder)
        if (submitted.parent / AS_RUN).exists():
            raise UserError(
                f"{AS_RUN} is where a service writes a study as it runs it",
                hint="give that file another name",
            )
        source = Source.read(submitted)
        _check(source, bundle, folder, allow_custom=allow_custom)
        source.validate(StudySpec)  # here its lines are those of whoever wrote it
        study = as_run(submitted, service)
        for key, name in named_files(study).items():
            _require_bundled(bundle, key, name)
        return study, study.load_task()
    except UserError as error:
        # Where the service keeps its files is nothing to whoever submits.
        told = str(error).replace(f"{folder}/", "").replace(AS_RUN, Path(bundle.study).name)
        raise UserError(told, error.hint) from None


def as_run(submitted: Path, service: LoadedService) -> LoadedStudy:
    """A study that was admitted, with what the service has now. Raises SpecError for a model that it has no more."""
    source = Source.read(submitted)
    content = dict(source.content)
    if not _is_replayed(content):
        content["models"] = _models(source, service)
        content["executor"] = service.executor()
    content["storage"] = service.storage_url
    path = submitted.with_name(AS_RUN)
    fresh = path.with_suffix(".new")
    fresh.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    fresh.replace(path)
    return load_study(path)


def serves(study: LoadedStudy) -> bool:
    """Whether a study starts servers on the machine that runs it."""
    models = study.spec.models.values()
    return study.table_path is None and any(isinstance(model, Served) for model in models)


def _check(source: Source, bundle: Bundle, folder: Path, *, allow_custom: bool) -> None:
    """Refuse what may not be said, before anything that the study names is read."""
    content = source.content
    name = content.get("name")
    is_name = isinstance(name, str) and _STUDY_NAME.fullmatch(name) is not None
    if not is_name or len(str(name).encode()) > LONGEST_NAME:
        raise source.error(
            ("name",),
            f"{name!r} is no name for a study",
            hint=f"letters, digits, _, - and ., {LONGEST_NAME} bytes at most",
        )
    space = content.get("search_space")
    if isinstance(space, str):
        place = _require_bundled(bundle, "search_space", space)
        _require_small(bundle, place, "the search space")
        if not allow_custom:
            _refuse_code(Source.read(folder / place))
    for entry in content.get("warm_start") or ():
        if not isinstance(entry, str) or "/" in entry or entry.endswith((".yaml", ".yml")):
            raise source.error(
                ("warm_start",),
                f"{entry!r}: a service takes over from its own studies only",
                hint="name one that was submitted to it",
            )
        if bundle.place(entry) is not None:
            raise source.error(
                ("warm_start",), f"{entry!r} is a file of the bundle", hint="give it another name"
            )
    if _is_replayed(content):
        replay = content["executor"]["replay"]
        _require_bundled(bundle, "executor.replay", replay if isinstance(replay, str) else "")


def _is_replayed(content: Mapping[str, Any]) -> bool:
    executor = content.get("executor")
    return isinstance(executor, dict) and "replay" in executor


def _require_bundled(bundle: Bundle, key: str, name: str) -> str:
    place = bundle.place(name)
    if place is None:
        raise SpecError(
            f"{bundle.study}: {key}: {name!r} is none of the files that were submitted",
            hint="name files by a path from the study's folder; tuner submit STUDY sends them along",
        )
    return place


def _require_small(bundle: Bundle, name: str, what: str) -> None:
    if len(bundle.files[name]) > LARGEST_TEXT:
        raise UserError(
            f"{name}: {what} has {len(bundle.files[name]):,} bytes, and {LARGEST_TEXT:,} are allowed",
            hint="put data into the task's files",
        )


def _refuse_code(space: Source) -> None:
    """Refuse a space that names functions, which are imported as soon as it is loaded."""
    workflows = space.content.get("workflows")
    for workflow, knobs in (workflows if isinstance(workflows, dict) else {}).items():
        named = [workflow]
        for knob, domain in (knobs if isinstance(knobs, dict) else {}).items():
            named += [] if str(knob).endswith("_model") else _texts(domain)
        for text in named:
            if ":" in text:
                raise space.error(
                    ("workflows", workflow),
                    f"{text!r} is code that is not the tuner's, which this service does not run",
                    hint="tuner up --allow-custom lets it, for code that stands on the service's machine",
                )


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield str(key)
            yield from _texts(value)
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value)


def _models(source: Source, service: LoadedService) -> dict[str, Any]:
    """The study's models as the service has them. Raises SpecError for one that it has not."""
    asked = source.validate(_Asked).models
    known, written = service.spec.models, service.models()
    found = {}
    for name, model in asked.items():
        names = sorted(known, key=lambda other: other != name)  # its own name first
        same = next((other for other in names if _is_same(model, known[other])), None)
        if same is None:
            raise source.error(
                ("models", name),
                f"is none of this service's models, which are: {', '.join(known)}",
                hint=_difference(name, model, known.get(name)),
            )
        found[name] = written[same]
    return found


def _is_same(model: Served | Addressed, known: Served | Addressed) -> bool:
    return type(model) is type(known) and not _differences(model, known)


def _differences(model: Served | Addressed, known: Served | Addressed) -> list[str]:
    """The keys in which a model is another one than the service's; how patiently it is called is the service's to say."""
    left_out = {*PATIENCE, "meter", "api_base", "endpoints"}
    mine, theirs = (each.model_dump(mode="json", exclude=left_out) for each in (model, known))
    keys = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
    return keys if _addresses(model) <= _addresses(known) else [*keys, "api_base"]


def _addresses(model: Served | Addressed) -> set[str]:
    """Where a model is said to be; a study may leave that to the service."""
    content = model.model_dump(mode="json")
    places = [content.get("api_base"), *(each["api_base"] for each in content.get("endpoints", ()))]
    return {place.rstrip("/") for place in places if place}


def _difference(name: str, model: Served | Addressed, known: Served | Addressed | None) -> str:
    if known is None:
        return "GET /models, or whoever runs the service, tells how they are written"
    if type(model) is not type(known):
        return f"the service's {name} is served in another way"
    return f"the service's {name} differs in: {', '.join(_differences(model, known))}"
