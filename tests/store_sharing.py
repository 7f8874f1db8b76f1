"""What stores that outlive a process have in common: threads and forked processes share one, and a closed one says so."""

from __future__ import annotations

import subprocess
import sys
import threading
from functools import partial

import pytest

from llmbuffer import Message, Session, StableContext
from llmbuffer.errors import StoreError
from llmbuffer.store import Store

CONTEXT = StableContext("gpt-5.5", "You are kind.")
FORKS = """
import os, sys
from llmbuffer import Message, Session
from llmbuffer.store import open_store
store = open_store(sys.argv[1])
session = Session.load(store, "s1")
child = os.fork()
if child == 0:
    fork = session.fork()
    fork.append(Message("user", "from the child"))
    fork.save()
    store.close()
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
session.append(Message("user", "from the parent"))
session.save()
assert store.verify() == ()
print(sorted(store.messages(record.id)[-1].text for record in store.sessions()))
store.close()
"""


def fill(store: Store, session_id: str = "s1", *texts: str) -> Session:
    session = Session(CONTEXT, store=store, session_id=session_id)
    session.append([Message("user", text) for text in texts or ("a", "b")])
    session.save()
    return session


def assert_closed_store_says_so(store: Store) -> None:
    session = fill(store)
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed: open it again"):
        store.messages("s1")
    session.append(Message("user", "c"))
    with pytest.raises(StoreError, match="is closed"):
        session.save()


def assert_threads_share(store: Store) -> None:
    """Six threads save and load a session each, whose beginning is that of all."""
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            session = fill(store, f"t{number}", "all say this", "and this")
            for turn in range(10):
                session.append(Message("user", f"{number}-{turn}"))
                session.save()
                assert Session.load(store, session.id).messages == session.messages
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            problems.append(error)

    threads = [threading.Thread(target=partial(work, number)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(store.sessions()) == 6
    assert store.stats().nodes == 2 + 60
    assert store.verify() == ()


def assert_forked_processes_share(url: str) -> None:
    """A child and its parent go on with a session ``s1`` that is there, each with connections of its own."""
    command = [sys.executable, "-W", "error", "-c", FORKS, url]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "['from the child', 'from the parent']", run.stderr
    assert "Warning" not in run.stderr
