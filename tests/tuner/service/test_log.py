import json
import resource
import signal

import pytest

from tuner.service.log import Log
from tuner.service.log import Reader


@pytest.fixture
def open_log():
    """Logs that are closed in the end."""
    opened = []

    def open_it(path, **more):
        opened.append(Log(path, **more))
        return opened[-1]

    yield open_it
    for log in opened:
        log.close()


def ids(found):
    return [number for number, _ in found]


def test_a_reader_gets_what_came_since(open_log, tmp_path):
    path = tmp_path / "study" / "events.jsonl"
    early = Reader(path)
    assert early.new() == []
    log = open_log(path)
    log.append({"event": "a", "text": "ü\n"})
    assert [json.loads(text) for _, text in early.new()] == [{"id": 1, "event": "a", "text": "ü\n"}]
    assert early.new() == []
    for _ in range(3):
        log.append({"event": "b"})
    assert ids(early.new(most=2)) == [2, 3]
    assert ids(early.new()) == [4]
    assert ids(Reader(path, after=3).new()) == [4]
    assert ids(Reader(path, after=9).new()) == []


def test_numbers_go_on_after_a_restart_that_tore_a_line(open_log, tmp_path):
    path = tmp_path / "events.jsonl"
    log = open_log(path)
    log.append({"event": "a"})
    log.append({"event": "b"})
    log.close()
    path.write_bytes(path.read_bytes() + b'{"id": 3, "eve')
    reader = Reader(path)
    assert ids(reader.new()) == [1, 2]
    again = open_log(path)
    again.append({"event": "c"})
    assert ids(reader.new()) == [3]
    assert ids(Reader(path).new()) == [1, 2, 3]


def test_a_log_is_cut_and_its_reader_misses_nothing_that_is_left(open_log, tmp_path):
    path = tmp_path / "events.jsonl"
    log, reader, got = open_log(path, largest=2000), Reader(path), []
    for n in range(200):
        log.append({"event": "x", "n": n})
        got += ids(reader.new())
    assert got == list(range(1, 201))
    assert path.stat().st_size < 2100
    left = ids(Reader(path).new())
    assert left == list(range(left[0], 201))
    assert 10 < len(left) < 100
    log.close()
    last = open_log(path)
    last.append({"event": "x"})
    assert ids(reader.new()) == [201]


def test_half_a_letter_of_a_broken_text_is_kept(open_log, tmp_path):
    log = open_log(tmp_path / "events.jsonl")
    log.append({"event": "a", "text": "\ud800"})
    assert ids(Reader(tmp_path / "events.jsonl").new()) == [1]


def test_an_event_for_which_there_is_no_room_leaves_the_log_as_it_was(open_log, tmp_path):
    path = tmp_path / "events.jsonl"
    log = open_log(path)
    log.append({"event": "a"})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large|No space left"):
            log.append({"event": "b", "text": "x" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.append({"event": "c"})
    found = [json.loads(text) for _, text in Reader(path).new()]
    assert [(each["id"], each["event"]) for each in found] == [(1, "a"), (2, "c")]
