"""The SQLite file: what it survives, what its errors say, and who may use it at once."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.store_sharing import (
    assert_closed_store_says_so,
    assert_forked_processes_share,
    assert_threads_share,
    fill,
)

from llmbuffer import Message, Session
from llmbuffer.errors import CorruptStoreError, StoreError
from llmbuffer.store import Store, open_store
from llmbuffer.store.sqlite import SqliteBackend


def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with open_store(url(path)) as store:
        yield store


def pragma(store: Store, text: str) -> object:
    assert isinstance(store.backend, SqliteBackend)
    return store.backend.connection().execute(f"PRAGMA {text}").fetchone()[0]


def test_the_file_is_safe_against_crashes_and_says_what_it_is(store: Store, path: Path) -> None:
    assert (pragma(store, "journal_mode"), pragma(store, "synchronous")) == ("wal", 2)
    assert pragma(store, "user_version") == 1
    assert pragma(store, "application_id") == int.from_bytes(b"llmb", "big")
    store.close()
    assert path.read_bytes()[68:72] == b"llmb"
    assert not path.with_name("store.db-wal").exists()


def refused(where: str) -> str:
    with pytest.raises(StoreError) as caught:
        open_store(where)
    return str(caught.value)


def test_what_is_no_store_is_refused_by_name(tmp_path: Path, path: Path) -> None:
    assert "is a directory" in refused(url(tmp_path))
    assert "create it first" in refused(url(tmp_path / "none" / "a.db"))
    path.write_text("this is no database, but a text")
    assert "is no SQLite database" in refused(url(path))
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE t (x)")
    other.close()
    assert "another program" in refused(url(path))
    assert "creates nothing" in refused(url(tmp_path / "none.db") + "?mode=ro")


def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    with open_store(url(path)) as store:
        fill(store)
        assert store.verify() == ()


def test_a_newer_schema_is_left_alone(store: Store, path: Path) -> None:
    fill(store)
    pragma_before = path.read_bytes()
    store.backend.connection().execute("PRAGMA user_version = 2")  # type: ignore[attr-defined]
    store.close()
    newer = path.read_bytes()
    assert newer != pragma_before
    assert "has schema version 2, and this llmbuffer knows version 1: update" in refused(url(path))
    assert path.read_bytes() == newer


def test_a_read_only_store_can_be_read(store: Store, path: Path) -> None:
    session = fill(store)
    store.close()
    before = path.read_bytes()
    with open_store(url(path) + "?mode=ro") as reading:
        loaded = Session.load(reading, "s1")
        assert loaded.messages == session.messages
        loaded.append(Message("user", "c"))
        with pytest.raises(StoreError, match="read-only; make it writable"):
            loaded.save()
        assert reading.verify() == ()
    assert path.read_bytes() == before


def test_a_full_disk_loses_nothing_that_was_acknowledged(store: Store) -> None:
    session = fill(store)
    pragma(store, f"max_page_count = {int(str(pragma(store, 'page_count')))}")
    session.append(Message("user", "x" * 100_000))
    with pytest.raises(StoreError, match="nothing was written; make room"):
        session.save()
    assert len(store.messages("s1")) == 2
    assert store.verify() == ()
    pragma(store, "max_page_count = 1000000")
    session.save()
    assert Session.load(store, "s1").messages == session.messages


def test_a_truncated_file_says_so_and_what_is_left_is_readable(store: Store, path: Path) -> None:
    for number in range(40):
        fill(store, f"s{number}", f"{number} " + "x" * 5_000)
    store.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 9 // 10 + 100])
    assert "malformed" in refused(url(path))
    assert "mode=salvage" in refused(url(path))
    with open_store(url(path) + "?mode=salvage") as left:
        assert any(finding.what == "file" for finding in left.verify())
        with open_store("memory:") as rescued:
            kept = rescued.import_(list(left.export(skip_damaged=True))).sessions
            assert 20 < kept < 40
            for record in rescued.sessions():
                assert rescued.messages(record.id)[0].text == f"{record.id[1:]} " + "x" * 5_000


def is_readable(store: Store, session_id: str) -> bool:
    """Whether it loads, and then says what it said."""
    try:
        assert Session.load(store, session_id).messages[0].text.startswith("unmistakable")
    except CorruptStoreError:
        return False
    return True


def test_a_corrupt_page_costs_what_stands_in_it(store: Store, path: Path) -> None:
    for number in range(30):
        fill(store, f"s{number}", f"unmistakable {number} " + "x" * 3_000)
    store.close()
    whole = bytearray(path.read_bytes())
    place = whole.index(b"unmistakable 15 ") // 4096 * 4096
    whole[place : place + 4096] = bytes(4096)
    path.write_bytes(whole)
    with open_store(url(path)) as damaged:
        assert damaged.verify()
        lost = sum(not is_readable(damaged, f"s{number}") for number in range(30))
        assert 1 <= lost <= 3
        with pytest.raises(StoreError):
            list(damaged.export())
        with open_store("memory:") as rescued:
            assert rescued.import_(list(damaged.export(skip_damaged=True))).sessions == 30 - lost


def test_what_was_forgotten_is_nowhere_in_the_files(store: Store, path: Path) -> None:
    fill(store, "s1", "shared", "the secret word " * 50)
    fill(store, "s2", "shared", "another one")
    store.keep_original("s1", "m", Message("user", "the secret original"))
    assert store.forget("s1").vacuumed
    files = b"".join(each.read_bytes() for each in path.parent.glob("store.db*"))
    assert b"secret" not in files
    assert b"another one" in files


def test_a_closed_store_says_so(store: Store) -> None:
    assert_closed_store_says_so(store)


def test_threads_share_a_store(store: Store) -> None:
    assert_threads_share(store)
    fill(store, "later")
    assert store.verify() == ()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_opens_its_own(store: Store, path: Path) -> None:
    fill(store)
    assert_forked_processes_share(url(path))


OTHER = """
import sys
from llmbuffer.store import open_store
with open_store(sys.argv[1]) as store:
    store.put(sys.argv[2], b"x")
    print(*sorted(store.keys()))
"""


def other_process(path: Path, key: str) -> list[str]:
    """The keys that another process finds, which opens the store, puts one, and closes it."""
    command = [sys.executable, "-c", OTHER, url(path), key]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_another_process_leaves_our_log_alone(store: Store, path: Path) -> None:
    """Whatever this process does with the file, it keeps its locks: who closes it elsewhere is not the last one."""
    store.put("mine", b"1")
    thread = threading.Thread(target=store.stats)  # a second connection
    thread.start()
    thread.join()
    with open_store(url(path)) as second:
        assert second.verify() == ()
    assert other_process(path, "theirs") == ["mine", "theirs"]
    assert set(store.keys()) == {"mine", "theirs"}
    store.put("later", b"2")
    assert other_process(path, "last") == ["last", "later", "mine", "theirs"]
    assert set(store.keys()) == {"last", "later", "mine", "theirs"}


FORKS = """
import os, sys
from llmbuffer.store import open_store
store = open_store(sys.argv[1])
store.put("parent", b"1")
told, tell = os.pipe()
ask, answer = os.pipe()
if os.fork() == 0:
    if sys.argv[2] == "grandchild" and os.fork():
        os._exit(0)
    store.put("child", b"1")
    os.write(tell, b"x")
    os.read(ask, 1)
    store.put("child later", b"2")
    store.close()
    os._exit(0)
os.read(told, 1)
store.close()
def other(key):
    child = os.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", sys.argv[3], sys.argv[1], key])
    os.waitpid(child, 0)
other("theirs")
os.close(tell)
os.write(answer, b"x")
os.read(told, 1)  # until the child has ended
other("theirs later")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("who", ["child", "grandchild"])
def test_a_forked_process_keeps_what_it_writes_when_all_others_close(tmp_path: Path, who: str) -> None:
    command = [sys.executable, "-W", "error", "-c", FORKS, url(tmp_path / "a.db"), who, OTHER]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    before, after = run.stdout.splitlines()
    assert before == "child parent theirs"
    assert after == "child child later parent theirs theirs later"


LOST = """
import os, sys
index = sys.argv[1].removeprefix("sqlite:///") + "-shm"
os.register_at_fork(after_in_child=lambda: os.rename(index, index + "-gone"))  # as where all others have closed by now
from llmbuffer.errors import StoreError
from llmbuffer.store import open_store
store = open_store(sys.argv[1])
store.put("parent", b"1")
if os.fork() == 0:
    for use in (lambda: store.put("child", b"1"), lambda: open_store(sys.argv[1])):
        try:
            use()
        except StoreError as error:
            print(error, flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_came_too_late_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOST, url(tmp_path / "a.db")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout.count("open stores after the fork") == 2, run.stdout + run.stderr


def test_a_thread_that_ended_leaves_no_connection(store: Store) -> None:
    for _ in range(5):
        thread = threading.Thread(target=store.stats)
        thread.start()
        thread.join()
    assert isinstance(store.backend, SqliteBackend)
    assert len(store.backend._open) <= 2


def test_processes_open_a_new_store_at_once(tmp_path: Path) -> None:
    program = "import sys; from llmbuffer.store import open_store; print(open_store(sys.argv[1]).verify())"
    command = [sys.executable, "-c", program, url(tmp_path / "new.db")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert [process.communicate()[0].strip() for process in running] == ["()"] * 6
