import threading
import uuid
from contextlib import closing
from contextlib import contextmanager
from dataclasses import replace

import pytest
import sqlalchemy as sa

from tuner.errors import StoreError
from tuner.errors import UserError
from tuner.service.book import Book
from tuner.service.book import Submission

ROW = Submission(
    name="s",
    user="anna",
    priority=1.0,
    state="queued",
    reason="",
    digest="d",
    study="s.yaml",
    fingerprint={"task": "1"},
    serves=False,
    submitted_s=1.0,
    changed_s=1.0,
)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """A database of its own, in which nothing is."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/service.db"
    return request.getfixturevalue("postgres").make_database(f"book_{uuid.uuid4().hex[:8]}")


@contextmanager
def connecting(url):
    """A connection of our own."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def book(url):
    with closing(Book(url)) as found:
        yield found


def test_a_token_is_not_kept_and_the_next_one_ends_it(book, url):
    assert not book.has_users()
    first = book.add_user("anna", 1.0)
    assert book.user_of(first).name == "anna"
    second = book.add_user("anna", 2.0)
    assert book.user_of(first) is None
    assert book.user_of(second).priority == 2.0
    assert book.user_of("") is None
    assert len(second) > 40
    with connecting(url) as connection:
        kept = str(connection.execute(sa.text("SELECT * FROM tuner_service_users")).all())
    assert "anna" in kept
    assert first not in kept
    assert second not in kept
    book.remove_user("anna")
    assert book.user_of(second) is None
    with pytest.raises(UserError, match="there are: none"):
        book.remove_user("anna")


def test_a_state_changes_only_from_where_it_may(book):
    assert book.enter(ROW)
    assert not book.move("s", "paused", of=["running"])
    assert book.move("s", "running", of=["queued"])
    assert not book.enter(replace(ROW, digest="e"))
    assert not book.move("s", "done", of=["running"], digest="e")
    assert book.move("s", "done", of=["running"], digest="d", reason="all is spent")
    assert book.submission("s").reason == "all is spent"
    assert book.enter(replace(ROW, digest="e"))
    assert book.submission("s").state == "queued"


def test_of_two_changes_at_once_one_happens(book):
    book.enter(replace(ROW, state="running"))
    moved = []

    def move(to):
        moved.append(book.move("s", to, of=["running"]))

    threads = [threading.Thread(target=move, args=[to]) for to in ("done", "cancelled") * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert moved.count(True) == 1


def test_a_verification_is_due_again_when_its_time_comes(book):
    asked = {"study": "s", "user": "anna", "rule": "knee", "file": "f", "questions": None}
    once = book.add_verification(**asked, every_s=None)
    often = book.add_verification(**asked, every_s=100.0)
    for each in (once, often):
        book.keep_result(each, started_s=each.next_s, outcome="holds", content={})
    once, often = book.verifications("s")
    assert once.next_s is None
    assert often.next_s == pytest.approx(book.results(often.id)[0].started_s + 100, abs=5)
    book.end_verification(often.id)
    book.keep_result(often, started_s=1.0, outcome="fails", content={})
    assert book.verifications()[1].next_s is None  # it was ended while it ran
    assert book.outcomes() == {("s", "holds"): 2, ("s", "fails"): 1}
    assert book.latest_results()[often.id].outcome == "fails"


def test_tables_of_another_version_are_refused(book, url):
    with connecting(url) as connection:
        connection.execute(sa.text("UPDATE tuner_service_schema SET version = 99"))
        connection.commit()
    with pytest.raises(StoreError, match="schema 99"):
        Book(url)


def test_a_database_that_is_none_is_named(tmp_path):
    (tmp_path / "service.db").write_text("no database " * 1000)
    with pytest.raises(StoreError, match="not a database"):
        Book(f"sqlite:///{tmp_path}/service.db")
