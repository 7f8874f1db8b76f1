"""The journal of a run in a store: what tasks came to, durable before anything depends on it; and who may run it.

An entry is a pinned value of the store that is never evicted, written in one step with the session that the task conversed
in. It is named by run, task and definition, so a changed task finds none. A lease lets one process run a run at a time.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import ConflictError, GraphError, RunHeldError
from ..store.backend import Record
from ..store.base import Saved, Store
from ..store.records import decode, encode
from ..usage import Usage

if TYPE_CHECKING:
    from ..session import Session

__all__ = ["Entry", "Journal", "Tenure", "forget_run", "storable"]

LEASE_SECONDS = 30.0


class Entry(msgspec.Struct, frozen=True):
    """What a task came to: its value, and the session that it conversed in."""

    key: str
    definition: bytes
    value: Any
    session_id: str | None
    usage: Usage
    cost: float | None
    attempts: int
    seconds: float


def storable(key: str, value: object) -> Any:
    """The value as it will be read from the store: tuples become lists, data classes mappings.

    Raises ``GraphError`` for what cannot be stored.
    """
    try:
        return msgspec.msgpack.decode(encode(value))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise GraphError(
            f"task {key!r} returned a {type(value).__name__} that a store cannot hold ({error}): return text, numbers, "
            "lists and mappings, or run without a store"
        ) from error


class Journal:
    """The entries of one run in a store. Its methods block: call them in a thread."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store, self.run_id = store, run_id
        self._owner = store.envelope.name("graph", run_id)

    @property
    def known(self) -> bool:
        """Whether the store holds such a run."""
        return self.store.get(_head(self.run_id)) is not None

    def entries(self) -> list[Entry]:
        """All entries of the run, also those of definitions that are no more."""
        store = self.store
        if not self.known:
            return []
        records = store.backend.records(store.space, "value", self._owner)
        found = [decode(store.record_body(each), tuple[str, bytes])[1] for each in records]
        if not found:  # the store was exported and imported, which keeps values and not what groups them
            values = store.keys()
            keys = [key for key in values if key.startswith(_prefix(self.run_id))]
            found = [body for key in keys if (body := store.get(key)) is not None]
        return [decode(body, Entry) for body in found]

    def begin(self, about: dict[str, Any]) -> None:
        """Note that there is such a run, before its first task."""
        if not self.known:
            self.store.put(_head(self.run_id), encode(about), weight=0, pinned=True)

    def root(self, session: Session) -> Saved:
        """Save the conversation that all tasks fork from, once, so that each of them is stored as what it adds."""
        saved = session._saved
        if isinstance(saved, Saved) and saved.store is self.store and saved.node is session.tip:
            return saved
        base = session.fork()
        base._id = f"{self.run_id}/base/{session.tip.digest.hex()[:16]}"
        try:
            return self.store.save(base, saved)
        except ConflictError as conflict:  # an earlier run wrote it
            if conflict.theirs != conflict.ours:
                raise
            return Saved(self.store, base.id, session.tip, bytes.fromhex(conflict.ours), 0)

    def keep(self, entry: Entry, session: Session | None) -> None:
        """Write a result, and the session that led to it, in one step; on the disk when it returns."""
        record = self._record(entry)
        if session is None:
            self.store.backend.append(self.store.space, [], None, [record])
        else:
            session._saved = self.store.save(session, session._saved, [record])

    def _record(self, entry: Entry) -> Record:
        key = f"{_prefix(self.run_id)}{entry.definition.hex()}/{entry.key}"
        name = self.store.envelope.name("value", key)
        body = encode((key, encode(entry)))
        return self.store.wrapped(Record("value", name, body, self._owner, pinned=True))


def _head(run_id: str) -> str:
    return f"graph/{run_id}"


def _prefix(run_id: str) -> str:
    return f"graph/{run_id}/"


def forget_run(store: Store, run_id: str) -> int:
    """Remove a run from a store: its journal, and the sessions of its tasks. Returns how many results went.

    A run that is under way is not to be forgotten: its process would write on.

    >>> from llmbuffer.store import open_store
    >>> forget_run(open_store("memory:"), "no-such-run")
    0
    """
    entries = Journal(store, run_id).entries()
    base = f"{run_id}/base/"
    gone = {each.session_id for each in entries if each.session_id is not None}
    gone |= {record.id for record in store.sessions() if record.id.startswith(base)}
    for session_id in sorted(gone):
        store.forget(session_id)
    values = store.keys()
    for key in values:
        if key == _head(run_id) or key.startswith(_prefix(run_id)):
            store.drop(key)
    return len(entries)


class Tenure:
    """The right to run a run, by a lease that names this process.

    A process of this machine that is no more is not waited for: its lease is taken over at once.
    """

    def __init__(self, store: Store, run_id: str, *, seconds: float | None = None) -> None:
        self._store, self._name, self._run_id = store, f"graph/{run_id}", run_id
        self.seconds = LEASE_SECONDS if seconds is None else seconds
        self.owner = f"{_machine()}/{os.getpid()}/{secrets.token_hex(8)}"

    def take(self) -> None:
        """Begin; raises ``RunHeldError`` if another process runs it."""
        if self._store.take(self._name, self.owner, self.seconds):
            return
        held = self._store.holder(self._name)
        if held is not None and _is_gone(held.owner):
            self._store.release(self._name, held.owner)
        if self._store.take(self._name, self.owner, self.seconds):
            return
        held = self._store.holder(self._name)
        until = (
            ""
            if held is None
            else f", for {max(0.0, held.until - self._store.clock()):.0f} seconds unless it goes on"
        )
        raise RunHeldError(
            f"run {self._run_id!r} is held by {'another process' if held is None else held.owner.rpartition('/')[0]!r}"
            f"{until}: wait for it, end it, or give another run_id"
        )

    def renew(self) -> None:
        """Go on; raises ``RunHeldError`` if it was lost."""
        if not self._store.renew(self._name, self.owner, self.seconds) and not self._retaken():
            raise RunHeldError(
                f"run {self._run_id!r} was taken over by another process, because this one did not answer for "
                f"{self.seconds:g} seconds: what was finished before is in the store; resume when that one has ended"
            )

    def _retaken(self) -> bool:
        return self._store.take(self._name, self.owner, self.seconds)

    def end(self) -> None:
        """Let go."""
        self._store.release(self._name, self.owner)


def _machine() -> str:
    """This machine, and where there are such, the space of process ids: containers may share a host's name."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()[:8]
    except OSError:
        space = boot = ""
    return f"{socket.gethostname()}{boot}{space}".replace("/", "-")


def _is_gone(owner: str) -> bool:
    """Whether the owner is a process of this machine that has ended."""
    machine, _, rest = owner.rpartition("/")[0].rpartition("/")
    if sys.platform == "win32" or machine != _machine() or not rest.isdigit():
        return False  # on Windows, asking whether a process is there would end it
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
