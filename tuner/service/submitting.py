"""A submission from its arrival to its place in the queue: written down, loaded, compared with what there is, entered.

Apart from `admission`, which says what a study may say: here is what a team's service makes of it.
"""

import shutil
import tempfile
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tuner.bundle import Bundle
from tuner.service.admission import admit
from tuner.service.admission import serves
from tuner.service.book import NOBODY
from tuner.service.book import Book
from tuner.service.book import Submission
from tuner.service.book import User
from tuner.service.engine import Engine
from tuner.service.guard import Refused
from tuner.service.spec import LoadedService


class Desk:
    """Takes submissions, one after another."""

    def __init__(
        self, service: LoadedService, book: Book, engine: Engine, *, allow_custom: bool
    ) -> None:
        self._service = service
        self._book = book
        self._engine = engine
        self._allow_custom = allow_custom
        self._lock = threading.Lock()

    def models(self) -> dict[str, Any]:
        """The catalogue, less what is the service's own business."""
        return {
            name: model.model_dump(mode="json", exclude_defaults=True, exclude={"api_key_env"})
            for name, model in self._service.spec.models.items()
        }

    def take(self, bundle: Bundle, user: User, priority: float) -> Submission:
        """Put a study into the queue. Raises UserError for what it may not say, and Refused for what is there already."""
        with self._lock, tempfile.TemporaryDirectory(prefix=".new-", dir=self._root()) as place:
            folder = Path(place) / "bundle"
            study, task = admit(bundle, folder, self._service, allow_custom=self._allow_custom)
            name, now_s = study.spec.name, time.time()
            row = Submission(
                name=name,
                user=user.name,
                priority=priority,
                state="queued",
                reason="",
                digest=bundle.digest(),
                study=bundle.study,
                fingerprint=study.fingerprint(task),
                serves=serves(study),
                submitted_s=now_s,
                changed_s=now_s,
            )
            before = self._book.submission(name)
            if before is not None and self._is_known(row, before, user):
                return before
            self._keep(folder, row)
            if not self._book.enter(row):
                raise _running(name)
        self._engine.tell_state(name, "queued", f"by {user.name}")
        return row

    def _root(self) -> Path:
        root = self._engine.folders.root
        root.mkdir(parents=True, exist_ok=True)
        return root

    def _is_known(self, row: Submission, before: Submission, user: User) -> bool:
        """Whether nothing is to be done. Raises Refused where this is not the same study going on."""
        if before.user not in (user.name, NOBODY) and user.name != NOBODY:
            raise Refused(
                HTTPStatus.CONFLICT,
                f"there is a study {row.name} already, of {before.user}",
                "give yours another name",
            )
        parts = [
            key for key, value in row.fingerprint.items() if before.fingerprint.get(key) != value
        ]
        if parts:
            raise Refused(
                HTTPStatus.CONFLICT,
                f"there is a study {row.name} already, with another {' and another '.join(parts)}",
                "give this one another name, or undo the change; its budget alone may grow",
            )
        if before.digest == row.digest and before.state in ("queued", "running"):
            return True
        if before.state == "running":
            raise _running(row.name)
        return False

    def _keep(self, folder: Path, row: Submission) -> None:
        """Move the files to where the study's are; those of earlier submissions stay, as exports name them."""
        place = self._engine.folders.bundle(row.name, row.digest)
        if place.exists():
            shutil.rmtree(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)


def _running(name: str) -> Refused:
    return Refused(
        HTTPStatus.CONFLICT,
        f"study {name} is running, with another file",
        f"pause or cancel it first: tuner cancel {name}",
    )
