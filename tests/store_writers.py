"""Processes that write into one store: killed at any moment, or all at once into one session; and damaged bytes.

A store is given by its URL. Run as a program it is one such process. It prints a line before and after every save; where a
server goes away, it waits for a line on its standard input, and tries again.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from llmbuffer import Message, Segment, Session, StableContext, ToolCall, ToolResult, Usage
from llmbuffer.compaction import ClipToolOutput, Compaction, ElideToolResults, Hook, Summarizer, Truncator
from llmbuffer.errors import ConflictError, StoreError, UnknownSessionError
from llmbuffer.messages import canonical
from llmbuffer.store import Store, open_store
from llmbuffer.tokens import EstimateCounter

T = TypeVar("T")
CONTEXT = StableContext("gpt-5.5", [Segment("policy", "Be kind. " * 100, level="global")])
ENOUGH = 10_000  # turns of a writer that nobody kills
USAGE = Usage(100, 10)


def compaction() -> Compaction:
    """A window so small that most turns are soon gone from the messages; the same in every process."""
    hooks: list[Hook] = [
        ClipToolOutput(150),
        ElideToolResults(keep_last=1),
        Summarizer(lambda messages: f"{len(messages)} messages.", over=300, length=60),
        Truncator(),
    ]
    return Compaction(2_000, hooks=hooks, horizon=50, reserve=200, strict=True)


def session_in(store: Store, session_id: str) -> Session:
    """The session, new or as it was saved; its clock stands still, so that requests do not depend on when they are built."""
    options: dict[str, Any] = {"tokens": EstimateCounter(), "clock": float, "compaction": compaction()}
    try:
        return Session.load(store, session_id, **options)
    except UnknownSessionError:
        return Session(CONTEXT, session_id=session_id, store=store, **options)


def digest(session: Session) -> str:
    """Of the messages, and of the bytes of the next request: as it is, and with a new turn, which may compact."""
    seen = blake2b(digest_size=12)
    for message in session.messages:
        seen.update(canonical(message))
    if not session._state.open_calls:
        for said in (None, "And now?"):
            seen.update(json.dumps(session.request(said).body).encode())
    return seen.hexdigest()


def save(session: Session, *tags: str) -> None:
    """Tell what will be saved, save, and tell that it was acknowledged."""
    print("saving", session.id, session.parent_id, digest(session), session.epoch, *tags, flush=True)
    patiently(session.save)
    print("saved", session.id, flush=True)


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


def turn(session: Session, random: Random) -> None:
    """A question, now and then with a call whose long result is clipped, and an answer; saved after each step."""
    asked, called, answer = (secrets.token_hex(6) for _ in range(3))
    request = session.request(f"<{asked}> " + "word " * random.randrange(300))
    if random.random() < 0.5:
        call = ToolCall(f"call_{called}", "track", f'{{"at": "<{called}>"}}')
        request.observe(USAGE, Message("assistant", [call]))
        save(session, asked, called)
        called_back(session, random)
        request = session.request()
    request.observe(USAGE, Message("assistant", f"In Lyon. <{answer}>"))
    save(session, asked, answer)


def called_back(session: Session, random: Random) -> None:
    """What the calls that are open return, if any is."""
    for call_id in session._state.open_calls:
        tag, words = secrets.token_hex(6), "word " * random.randrange(400)
        session.append(Message("tool", [ToolResult(call_id, f"{words}<{tag}> {words}")]))
        save(session, tag)


def appended(session: Session, count: int) -> None:
    """So many messages at once."""
    tags = [secrets.token_hex(6) for _ in range(count)]
    session.append([Message("user", f"<{tag}>") for tag in tags])
    save(session, *tags)


def write_until_killed(url: str, writer: str) -> None:
    """Say turns, compact, fork also forks (now and then much at once), and forget the forks before, and sweep with it."""
    random = Random(secrets.token_bytes(8))
    with patiently(lambda: open_store(url)) as store:
        session = patiently(lambda: session_in(store, writer))
        known = patiently(lambda: [each.id for each in store.sessions() if each.parent_id == writer])
        forks = [patiently(lambda name=name: session_in(store, name)) for name in known[:2]]  # type: ignore[misc]
        for each in (session, *forks):
            called_back(each, random)  # one that was killed in the middle of a turn goes on there
        for number in range(ENOUGH):
            turn(session, random)
            if number % 3 == 1:
                session.compact("asked for")
                save(session)
            if number % 4 == 3:
                forks.append(random.choice([session, *forks]).fork())
                save(forks[-1])
                appended(forks[-1], 1_200 if random.random() < 0.05 else 1)
                turn(random.choice(forks), random)
            if number % 8 == 7:
                forgotten(store, forks.pop(0).id)


def race(url: str, writer: str, turns: int) -> None:
    """Append to the one session that all have; whoever was too late is told, and looks again."""
    with open_store(url) as store:
        session = session_in(store, "shared")
        for number in range(turns):
            session.append(Message("user", f"{writer}-{number}"))
            try:
                session.save()
                print(session.id, session.tip.depth, f"{writer}-{number}", flush=True)
            except ConflictError as conflict:
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


def main(arguments: Sequence[str]) -> None:
    """Be one of the processes: ``crash``, or ``race``, with its URL and its name."""
    what, url, writer, *turns = arguments
    if what == "crash":
        write_until_killed(url, writer)
    else:
        race(url, writer, int(turns[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
