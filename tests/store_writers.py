"""Processes that write into one SQLite store: killed at any moment, or all at once into one session; and damaged files.

Run as a program it is one such process, and prints a line for every save that was acknowledged.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from llmbuffer import Message, Segment, Session, StableContext
from llmbuffer.errors import ConflictError, StoreError, UnknownSessionError
from llmbuffer.store import Store, open_store
from llmbuffer.tokens import EstimateCounter

CONTEXT = StableContext("gpt-5.5", [Segment("policy", "Be kind. " * 100, level="global")])
ENOUGH = 10_000  # turns of a writer that nobody kills


def opened(path: Path) -> Store:
    return open_store(f"sqlite:///{path}")


def session_in(store: Store, session_id: str) -> Session:
    try:
        return Session.load(store, session_id, tokens=EstimateCounter())
    except UnknownSessionError:
        return Session(CONTEXT, tokens=EstimateCounter(), session_id=session_id, store=store)


def say(session: Session, text: str) -> None:
    """Append and save, and tell that it was acknowledged."""
    session.append(Message("user", text))
    session.save()
    print(session.id, session.tip.depth, text, flush=True)


def write_until_killed(path: Path, writer: str) -> None:
    """Append, fork, append to the fork, forget the fork before, and sweep now and then."""
    random, forks = Random(writer), []
    with opened(path) as store:
        session = session_in(store, writer)
        for turn in range(ENOUGH):
            say(session, f"{writer}-{turn}-" + "word " * random.randrange(400))
            if turn % 4 == 3:
                forks.append(session.fork())
                say(forks[-1], f"{writer}-fork-{turn}")
            if turn % 16 == 15:
                gone = forks.pop(0)
                print("forgetting", gone.id, flush=True)
                store.forget(gone.id)


def race(path: Path, writer: str, turns: int) -> None:
    """Append to the one session that all have; whoever was too late is told, and looks again."""
    with opened(path) as store:
        session = session_in(store, "shared")
        for turn in range(turns):
            try:
                say(session, f"{writer}-{turn}")
            except ConflictError as conflict:  # noqa: PERF203 - each turn is told for itself
                print("conflict", conflict.ours, conflict.theirs, flush=True)
                session = session_in(store, "shared")


@contextmanager
def writers(path: Path, count: int, *arguments: str) -> Iterator[list[subprocess.Popen[str]]]:
    """So many processes; those that still run in the end are killed."""
    command = [sys.executable, "-m", "tests.store_writers", arguments[0], str(path)]
    root = Path(__file__).parents[1]
    running = [
        subprocess.Popen(
            [*command, f"w{number}", *arguments[1:]], stdout=subprocess.PIPE, text=True, cwd=root
        )
        for number in range(count)
    ]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def crash_round(path: Path, random: Random, count: int = 4) -> int:
    """Kill writers at a random moment, and check that all that was acknowledged is there. Returns how much that was."""
    lines: list[str] = []
    with writers(path, count, "crash") as running:
        for _ in range(random.randrange(1, 30)):
            pipe = random.choice(running).stdout
            assert pipe is not None
            lines.append(pipe.readline())
        for process in running:
            process.kill()
        for process in running:
            lines += process.communicate()[0].splitlines(keepends=True)
    lines = [line for line in lines if line.endswith("\n")]  # the last one may be cut off
    check_acknowledged(path, lines)
    return len(lines)


def check_acknowledged(path: Path, lines: list[str]) -> None:
    """Every line that a writer printed is true of the store, and every chain verifies."""
    split = [line.strip().split(" ", 2) for line in lines]
    forgotten = {each[1] for each in split if each[0] == "forgetting"}
    with opened(path) as store:
        assert store.verify() == ()
        known = {record.id: store.messages(record.id) for record in store.sessions()}
    for session_id, depth, *text in split:
        if session_id != "forgetting" and not (session_id in forgotten and session_id not in known):
            assert known[session_id][int(depth) - 1].text.strip() == text[0].strip(), (session_id, depth)


def race_round(path: Path, count: int, turns: int) -> tuple[int, int]:
    """Let processes append to one session; returns how many turns are in, and how many were refused."""
    with writers(path, count, "race", str(turns)) as running:
        said = [process.communicate()[0].splitlines() for process in running]
        assert [process.returncode for process in running] == [0] * count
    accepted, refused = [], 0
    for lines in said:
        for line in lines:
            first, _, rest = line.split(" ")
            if first == "conflict":
                refused += 1
            else:
                accepted.append(rest)
    with opened(path) as store:
        assert store.verify() == ()
        there = [message.text for message in store.messages("shared")]
    assert Counter(there) == Counter(accepted), "a turn vanished, or came twice"
    assert len(accepted) + refused == count * turns
    for writer in range(count):
        own = [int(text.split("-")[1]) for text in there if text.startswith(f"w{writer}-")]
        assert own == sorted(own)
    return len(accepted), refused


def filled(path: Path) -> list[str]:
    """A store with something of every kind, closed; returns its export."""
    with opened(path) as store:
        for number in range(6):
            session = session_in(store, f"session-{number}")
            for turn in range(20):
                session.append(Message("user", f"{number}-{turn} " + "word " * (turn * 7)))
            session.append(Message("user", f"long {number} " + "x" * 6_000))
            session.save()
        session.fork("worker", system="Another context.").save()
        store.put("value", b"\x00\xff" * 300, ttl=10**9, price=2.0)
        store.keep_original("session-1", "m", Message("user", "an original"))
        store.take("lease", "ann", 10**9)
        store.vacuum()
        return list(store.export())


def flip(path: Path, whole: bytes, random: Random, told: list[str]) -> str:
    """Change one byte of the file, and say what became of it: ``refused``, ``found``, or ``harmless`` by comparison."""
    place = random.randrange(len(whole))
    changed = bytearray(whole)
    changed[place] ^= random.randrange(1, 256)
    for leftover in (path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        leftover.unlink(missing_ok=True)
    path.write_bytes(changed)
    try:
        store = opened(path)
    except StoreError:
        return "refused"
    with store:
        if store.verify():
            return "found"
        assert list(store.export()) == told, f"byte {place} was changed, and verify() did not see it"
        assert store.holder("lease") is not None, f"byte {place} took the lease away"
        return "harmless"


if __name__ == "__main__":
    if sys.argv[1] == "crash":
        write_until_killed(Path(sys.argv[2]), sys.argv[3])
    else:
        race(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
