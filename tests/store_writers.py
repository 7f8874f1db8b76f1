"""Processes that write into one store: killed at any moment, or all at once into one session; and damaged bytes.

A store is given by its URL. Run as a program it is one such process, and prints a line for every save that was
acknowledged; where a server goes away, it waits for a line on its standard input, and tries again.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TypeVar

from llmbuffer import Message, Segment, Session, StableContext
from llmbuffer.errors import ConflictError, StoreError, UnknownSessionError
from llmbuffer.store import Store, open_store
from llmbuffer.tokens import EstimateCounter

T = TypeVar("T")
CONTEXT = StableContext("gpt-5.5", [Segment("policy", "Be kind. " * 100, level="global")])
ENOUGH = 10_000  # turns of a writer that nobody kills


def session_in(store: Store, session_id: str) -> Session:
    try:
        return Session.load(store, session_id, tokens=EstimateCounter())
    except UnknownSessionError:
        return Session(CONTEXT, tokens=EstimateCounter(), session_id=session_id, store=store)


def say(session: Session, *texts: str) -> None:
    """Append and save, and tell that it was acknowledged."""
    session.append([Message("user", text) for text in texts])
    patiently(session.save)
    print(session.id, session.tip.depth, texts[-1], flush=True)


def patiently(step: Callable[[], T]) -> T:
    """Do it; again if the server is gone and has come back."""
    while True:
        try:
            return step()
        except (ConflictError, UnknownSessionError):  # noqa: PERF203 - it is tried again
            raise
        except StoreError as error:
            print("gone", flush=True)
            if not sys.stdin.readline():
                raise SystemExit(f"the store is gone, and nobody says that it is back: {error}") from error


def forgotten(store: Store, session_id: str) -> None:
    """It is gone in the end, whoever removed it."""
    print("forgetting", session_id, flush=True)
    try:
        patiently(lambda: store.forget(session_id))
    except UnknownSessionError:
        return


def write_until_killed(url: str, writer: str) -> None:
    """Append, fork, append to the fork (now and then much at once), forget the fork before, and sweep with it."""
    forks: list[Session] = []
    with patiently(lambda: open_store(url)) as store:
        session = patiently(lambda: session_in(store, writer))
        random = Random(f"{writer}-{session.tip.depth}")
        for turn in range(ENOUGH):
            say(session, f"{writer}-{turn}-" + "word " * random.randrange(400))
            if turn % 4 == 3:
                forks.append(session.fork())
                many = 1_200 if random.random() < 0.05 else 1
                say(forks[-1], *(f"{writer}-fork-{turn}-{number}" for number in range(many)))
            if turn % 16 == 15:
                forgotten(store, forks.pop(0).id)


def race(url: str, writer: str, turns: int) -> None:
    """Append to the one session that all have; whoever was too late is told, and looks again."""
    with open_store(url) as store:
        session = session_in(store, "shared")
        for turn in range(turns):
            try:
                say(session, f"{writer}-{turn}")
            except ConflictError as conflict:  # noqa: PERF203 - each turn is told for itself
                print("conflict", conflict.ours, conflict.theirs, flush=True)
                session = session_in(store, "shared")


@contextmanager
def writers(url: str, count: int, *arguments: str) -> Iterator[list[subprocess.Popen[str]]]:
    """So many processes; those that still run in the end are killed."""
    command = [sys.executable, "-m", "tests.store_writers", arguments[0], url]
    root = Path(__file__).parents[1]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [
        subprocess.Popen([*command, f"w{number}", *arguments[1:]], text=True, cwd=root, **pipes)  # type: ignore[call-overload]
        for number in range(count)
    ]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                pipe.close()


def crash_round(
    url: str, random: Random, count: int = 4, *, server_crash: Callable[[], None] | None = None
) -> int:
    """Kill writers at a random moment, and check that all that was acknowledged is there. Returns how much that was.

    ``server_crash`` kills the server and starts it again: before that the writers say something, and after it they go on.
    """
    with writers(url, count, "crash") as running:
        lines = heard(running, random, random.randrange(1, 30))
        if server_crash is not None:
            server_crash()
            for process in running:
                assert process.stdin is not None
                process.stdin.write("go on\n")
                process.stdin.flush()
            lines += heard(running, random, random.randrange(1, 30))
        for process in running:
            process.kill()
        for process in running:
            assert process.stdout is not None
            assert process.stderr is not None
            lines += process.stdout.readlines()
            problems = process.stderr.read()
            assert process.wait() == -signal.SIGKILL, f"a writer ended by itself: {problems}"
    lines = [
        line for line in lines if line.endswith("\n") and line != "gone\n"
    ]  # the last one may be cut off
    check_acknowledged(url, lines)
    return sum(not line.startswith("forgetting ") for line in lines)


def heard(running: list[subprocess.Popen[str]], random: Random, count: int) -> list[str]:
    """So many lines of any of them."""
    lines = []
    for _ in range(count):
        pipe = random.choice(running).stdout
        assert pipe is not None
        lines.append(pipe.readline())
    return lines


def check_acknowledged(url: str, lines: list[str]) -> None:
    """Every line that a writer printed is true of the store, and every chain verifies."""
    split = [line.strip().split(" ", 2) for line in lines]
    forgotten = {each[1] for each in split if each[0] == "forgetting"}
    with open_store(url) as store:
        assert store.verify() == ()
        known = {record.id: store.messages(record.id) for record in store.sessions()}
    for session_id, depth, *text in split:
        if session_id != "forgetting" and not (session_id in forgotten and session_id not in known):
            assert known[session_id][int(depth) - 1].text.strip() == text[0].strip(), (session_id, depth)


def race_round(url: str, count: int, turns: int) -> tuple[int, int]:
    """Let processes append to one session; returns how many turns are in, and how many were refused with both tips."""
    with writers(url, count, "race", str(turns)) as running:
        said = [process.communicate() for process in running]
        assert [process.returncode for process in running] == [0] * count, [each[1] for each in said]
    accepted, refused = [], 0
    for lines, _ in said:
        for line in lines.splitlines():
            first, second, rest = line.split(" ")
            if first == "conflict":
                assert len(second) == len(rest) == 48
                assert second != rest
                refused += 1
            else:
                accepted.append(rest)
    with open_store(url) as store:
        assert store.verify() == ()
        there = [message.text for message in store.messages("shared")]
    assert Counter(there) == Counter(accepted), "a turn vanished, or came twice"
    assert len(accepted) + refused == count * turns
    for writer in range(count):
        own = [int(text.split("-")[1]) for text in there if text.startswith(f"w{writer}-")]
        assert own == sorted(own)
    return len(accepted), refused


def filled(url: str) -> list[str]:
    """A store with something of every kind, closed; returns its export."""
    with open_store(url) as store:
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
    """Change one byte of a SQLite file, and say what became of it: ``refused``, ``found``, or ``harmless`` by comparison."""
    place = random.randrange(len(whole))
    changed = bytearray(whole)
    changed[place] ^= random.randrange(1, 256)
    for leftover in (path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        leftover.unlink(missing_ok=True)
    path.write_bytes(changed)
    try:
        store = open_store(f"sqlite:///{path}")
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
        write_until_killed(sys.argv[2], sys.argv[3])
    else:
        race(sys.argv[2], sys.argv[3], int(sys.argv[4]))
