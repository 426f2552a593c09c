"""What a service keeps: its users, what they submitted and what became of it, and claims that are verified.

The only module that reads or writes the service's tables. Every change of a state says what it may come from, so that two
that are asked for at once cannot both happen.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Collection
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import Literal
from typing import get_args

import sqlalchemy as sa

from tuner.errors import UserError
from tuner.service.tables import make_tables
from tuner.service.tables import submissions
from tuner.service.tables import users
from tuner.service.tables import verifications
from tuner.service.tables import verified
from tuner.store import schema

State = Literal["queued", "running", "paused", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)

ENDED: frozenset[State] = frozenset({"done", "failed", "cancelled"})

NOBODY = "local"
"""Who asks where there are no users."""

TOKEN_BYTES = 32

MOST_RESULTS = 1000
"""Of one verification that are kept."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may ask."""

    name: str
    priority: float
    """How much of what is shared is due, beside others."""


LOCAL = User(NOBODY, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A study that was handed in."""

    name: str
    user: str
    priority: float
    """Among the studies of the same user."""
    state: State
    reason: str
    """Why it is in this state, where that is to be said."""
    digest: str
    """Of its bundle, and the folder that it lies in."""
    study: str
    """Its study file within the bundle."""
    fingerprint: Mapping[str, str]
    serves: bool
    """Whether it starts servers on this machine."""
    submitted_s: float
    changed_s: float


@dataclass(frozen=True, slots=True)
class Verification:
    """A claim that is measured again, once or now and then."""

    id: int
    study: str
    user: str
    rule: str
    file: str
    """The export that makes the claim, within the study's folder."""
    questions: int | None
    every_s: float | None
    """None: once."""
    next_s: float | None
    """When it is due; None: no more."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of one such measurement."""

    id: int
    verification: int
    started_s: float
    took_s: float
    outcome: str
    """holds, fails or undecided; error where nothing could be measured."""
    content: Mapping[str, Any]


class Book:
    """The service's part of the database; safe to be used by several threads."""

    def __init__(self, url: str) -> None:
        """Raises StoreError for a database that cannot be used."""
        self._engine = schema.make_engine(url)
        try:
            make_tables(self._engine)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Let go of the database's connections."""
        self._engine.dispose()

    def check(self) -> None:
        """Raises SQLAlchemyError where the database cannot be asked."""
        with self._engine.connect() as connection:
            connection.execute(sa.select(submissions.c.name).limit(1)).first()

    # Users

    def add_user(self, name: str, priority: float) -> str:
        """A fresh token for a user, who may be known: the old one is worth nothing then. It is not kept, only its digest."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        with self._engine.begin() as connection:
            connection.execute(sa.delete(users).where(users.c.name == name))
            connection.execute(
                sa.insert(users).values(
                    name=name, token_sha256=_digest(token), priority=priority, added_s=time.time()
                )
            )
        return token

    def remove_user(self, name: str) -> None:
        """Raises UserError for somebody who is not known."""
        with self._engine.begin() as connection:
            gone = connection.execute(sa.delete(users).where(users.c.name == name))
        if not gone.rowcount:
            known = ", ".join(user.name for user in self.users()) or "none"
            raise UserError(f"there is no user {name!r}; there are: {known}", hint="check the name")

    def users(self) -> list[User]:
        """Everybody, by name."""
        query = sa.select(users.c.name, users.c.priority).order_by(users.c.name)
        with self._engine.connect() as connection:
            return [User(*row) for row in connection.execute(query)]

    def user_of(self, token: str) -> User | None:
        """Whose token it is; every digest is compared, each in constant time."""
        given, found = _digest(token), None
        query = sa.select(users.c.token_sha256, users.c.name, users.c.priority)
        with self._engine.connect() as connection:
            for digest, name, priority in connection.execute(query):
                if hmac.compare_digest(digest, given):
                    found = User(name, priority)
        return found

    def has_users(self) -> bool:
        """Whether tokens are asked for."""
        with self._engine.connect() as connection:
            return connection.execute(sa.select(users.c.name).limit(1)).first() is not None

    # Submissions

    def submissions(self) -> list[Submission]:
        """All, the oldest first."""
        query = sa.select(submissions).order_by(submissions.c.submitted_s, submissions.c.name)
        with self._engine.connect() as connection:
            return [Submission(**row._mapping) for row in connection.execute(query)]

    def submission(self, name: str) -> Submission | None:
        """The one of this name."""
        with self._engine.connect() as connection:
            query = sa.select(submissions).where(submissions.c.name == name)
            row = connection.execute(query).first()
        return None if row is None else Submission(**row._mapping)

    def enter(self, submission: Submission) -> bool:
        """Keep a submission in the place of one of its name that is not running; whether there was none that is."""
        row = {name: getattr(submission, name) for name in submissions.c.keys()}  # noqa: SIM118 (columns)
        mine = submissions.c.name == submission.name
        with self._engine.begin() as connection:
            connection.execute(sa.delete(submissions).where(mine, submissions.c.state != "running"))
            if connection.execute(sa.select(submissions.c.name).where(mine)).first():
                return False
            connection.execute(sa.insert(submissions).values(**row))
            return True

    def move(
        self, name: str, to: State, *, of: Collection[State], reason: str = "", digest: str | None = None
    ) -> bool:  # fmt: skip
        """Change a submission's state, if it is one `of` these, and of this bundle; whether it was."""
        query = (
            sa.update(submissions)
            .where(submissions.c.name == name, submissions.c.state.in_(of))
            .values(state=to, reason=reason, changed_s=time.time())
        )
        if digest is not None:
            query = query.where(submissions.c.digest == digest)
        with self._engine.begin() as connection:
            return bool(connection.execute(query).rowcount)

    # Verifications

    def add_verification(
        self,
        *,
        study: str,
        user: str,
        rule: str,
        file: str,
        questions: int | None,
        every_s: float | None,
    ) -> Verification:
        """One that is due now."""
        values = {
            "study": study,
            "user": user,
            "rule": rule,
            "file": file,
            "questions": questions,
            "every_s": every_s,
            "next_s": time.time(),
        }
        with self._engine.begin() as connection:
            done = connection.execute(sa.insert(verifications).values(**values))
            key = done.inserted_primary_key
        assert key is not None
        return Verification(id=int(key[0]), **values)  # type: ignore[arg-type]

    def verifications(self, study: str | None = None) -> list[Verification]:
        """Those of a study, or all."""
        query = sa.select(verifications).order_by(verifications.c.id)
        if study is not None:
            query = query.where(verifications.c.study == study)
        with self._engine.connect() as connection:
            return [Verification(**row._mapping) for row in connection.execute(query)]

    def end_verification(self, verification: int) -> None:
        """Let it not be due again; what it found stays."""
        self._due(verification, None)

    def results(self, verification: int) -> list[Verified]:
        """What it has found, the latest first."""
        query = (
            sa.select(verified)
            .where(verified.c.verification == verification)
            .order_by(verified.c.id.desc())
        )
        with self._engine.connect() as connection:
            return [Verified(**row._mapping) for row in connection.execute(query)]

    def latest_results(self) -> dict[int, Verified]:
        """What each verification has found last."""
        latest = sa.select(sa.func.max(verified.c.id)).group_by(verified.c.verification)
        query = sa.select(verified).where(verified.c.id.in_(latest))
        with self._engine.connect() as connection:
            rows = [Verified(**row._mapping) for row in connection.execute(query)]
        return {row.verification: row for row in rows}

    def outcomes(self) -> dict[tuple[str, str], int]:
        """How many measurements there were, by study and outcome."""
        query = (
            sa.select(verifications.c.study, verified.c.outcome, sa.func.count())
            .join(verifications, verifications.c.id == verified.c.verification)
            .group_by(verifications.c.study, verified.c.outcome)
        )
        with self._engine.connect() as connection:
            return {(study, outcome): count for study, outcome, count in connection.execute(query)}

    def keep_result(
        self, done: Verification, *, started_s: float, outcome: str, content: Mapping[str, Any]
    ) -> None:
        """What came of one that was due; it is due again when its time comes, unless it was ended meanwhile."""
        now_s = time.time()
        with self._engine.begin() as connection:
            connection.execute(
                sa.insert(verified).values(
                    verification=done.id,
                    started_s=started_s,
                    took_s=now_s - started_s,
                    outcome=outcome,
                    content=dict(content),
                )
            )
            old = (
                sa.select(verified.c.id)
                .where(verified.c.verification == done.id)
                .order_by(verified.c.id.desc())
                .offset(MOST_RESULTS)
            )
            gone = [row.id for row in connection.execute(old)]
            if gone:
                connection.execute(sa.delete(verified).where(verified.c.id.in_(gone)))
            connection.execute(
                sa.update(verifications)
                .where(verifications.c.id == done.id, verifications.c.next_s == done.next_s)
                .values(next_s=None if done.every_s is None else now_s + done.every_s)
            )

    def _due(self, verification: int, next_s: float | None) -> None:
        with self._engine.begin() as connection:
            query = sa.update(verifications).where(verifications.c.id == verification)
            connection.execute(query.values(next_s=next_s))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
