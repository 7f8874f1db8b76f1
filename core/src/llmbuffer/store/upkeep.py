"""Looking after a store: what is in it, whether it is whole, forgetting, and moving it elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import LLMBufferError, SealError, StoreError, UnknownSessionError
from .backend import ROOT, NodeRow, Record, Size, Swept
from .envelope import Plain
from .records import Compiled, SessionRecord, decode, decode_context, decode_message, record_place
from .rights import needs
from .safe import HOME
from .sealed import Sealed
from .shelf import Shelf

if TYPE_CHECKING:
    from ..session import Session

__all__ = ["Finding", "Forgotten", "Upkeep"]


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong: ``what`` is a file, key, node, session or record; ``name`` says which.

    >>> Finding("session", "s1", "message 3 is missing").problem
    'message 3 is missing'
    """

    what: str
    name: str
    problem: str


class Forgotten(msgspec.Struct, frozen=True):
    """What went with a session, in rows, and whether its bytes are overwritten and given back (else ``vacuum`` later).

    >>> Forgotten(nodes=3, records=1, vacuumed=True).nodes
    3
    """

    nodes: int
    records: int
    vacuumed: bool


# How the body of a record of each kind is read.
_READERS: dict[str, Any] = {
    "context": decode_context,
    "compiled": lambda body: decode(body, Compiled),
    "value": lambda body: decode(body, tuple[str, bytes]),
    "lease": lambda body: decode(body, tuple[str, str, float]),
    "original": lambda body: decode_message(decode(body, tuple[str, str, bytes])[2]),
}


class Upkeep(Shelf):
    """The part of ``Store`` that looks after the whole."""

    @needs("read")
    def sessions(self) -> tuple[SessionRecord, ...]:
        """All saved sessions, without their messages. Damaged ones are left out: ``verify`` lists them."""
        found = []
        for row in self.backend.sessions(self.space):
            try:
                found.append(self.session_record(row))
            except SealError:  # noqa: PERF203 - without the key there is nothing to list
                raise
            except StoreError:  # the others are readable
                continue
        return tuple(found)

    @needs("read")
    def stats(self) -> Size:
        """How much there is, in rows and bytes. A tenant is not told the size of the file, which others fill, too."""
        size = self.backend.size(self.space)
        return size._replace(file_bytes=0) if self.space else size

    @needs("admin")
    def gc(self) -> Swept:
        """Remove what no session uses, and what has expired."""
        return self._swept()

    def _swept(self) -> Swept:
        """Sweep, and remove compiled contexts that no stored context has any more, since they hold its texts."""
        backend, space = self.backend, self.space
        swept = backend.sweep(space, self.clock())
        owners = {record.owner for record in backend.records(space, "context")}
        orphans = [record.key for record in backend.records(space, "compiled") if record.owner not in owners]
        dropped = sum(backend.drop(space, "compiled", key) for key in orphans)
        return swept._replace(records=swept.records + dropped)

    @needs("admin")
    def vacuum(self) -> bool:
        """Overwrite and give back what was removed. False if readers kept it from finishing: try again later."""
        return self.backend.vacuum()

    @needs("admin")
    def forget(self, session: str | Session) -> Forgotten:
        """Delete a session, its originals, and all messages and contexts that no other session uses, and vacuum.

        Give its id, or the session. Forks keep what they share with it. Raises ``UnknownSessionError`` where there is none.
        """
        session_id = session if isinstance(session, str) else session.id
        if not self.backend.forget(self.space, self.envelope.name("session", session_id)):
            raise UnknownSessionError(
                f"the store holds no session {session_id!r}: sessions() lists those that it holds"
            )
        swept = self._swept()
        return Forgotten(swept.nodes, swept.records, self.backend.vacuum())

    # Whether it is whole

    @needs("admin")
    def verify(self) -> tuple[Finding, ...]:
        """Everything that is not as it was written; empty for a store that is whole. Reads all of it.

        Finds damage of the file, bodies and digests that do not match, missing parents, sessions that were half written,
        and records that cannot be read. Changes nothing.
        """
        found = [Finding("file", repr(self.backend), problem) for problem in self.backend.check()]
        found += self._scanned("key", self.backend.records(HOME, "seal"), self._check_seal)
        if isinstance(self.envelope, Sealed):
            found += [Finding("key", "(all)", problem) for problem in self.envelope.safe.check()]
        depths: dict[bytes, int] = {ROOT: 0}
        contexts: set[bytes] = set()
        found += self._scanned(
            "node", self.backend.nodes(self.space), lambda row: self._check_node(row, depths)
        )
        found += self._scanned(
            "record", self.backend.records(self.space), lambda record: self._check_record(record, contexts)
        )
        found += self._scanned(
            "session",
            self.backend.sessions(self.space),
            lambda row: self._check_session(self.session_record(row), row.tip, row.context, depths, contexts),
        )
        return tuple(found)

    def _scanned(self, what: str, rows: Iterator[Any], check: Any) -> Iterator[Finding]:
        """Findings of one kind of row; a file that cannot be read on is a finding, too."""
        while True:
            name = "(all that follow)"
            try:
                row = next(rows, None)
                if row is None:
                    return
                key = row.digest if isinstance(row, NodeRow) else row.key
                name = key.hex() if isinstance(row, NodeRow) else repr(key)
                problem = check(row)
            except LLMBufferError as error:
                problem = str(error)
            except (TypeError, ValueError, AttributeError) as error:  # a damaged row holds values of any type
                problem = f"unreadable: {type(error).__name__}: {error}"
            if problem is not None:
                yield Finding(what, name, problem)
            if name == "(all that follow)":
                return

    @staticmethod
    def _check_seal(record: Record) -> None:
        """The marker of the store, and its wrapped keys."""
        Plain().unwrap(record_place(record), record.body)

    def _check_node(self, row: NodeRow, depths: dict[bytes, int]) -> str | None:
        if row.parent not in depths:
            return f"its parent {row.parent.hex()} is missing"
        depths[row.digest] = depths[row.parent] + 1
        body = self.node_body(row)
        if self.envelope.digest(row.parent, body) != row.digest:
            return "its digest is not that of its content"
        decode_message(body)
        return None

    def _check_record(self, record: Record, contexts: set[bytes]) -> str | None:
        if record.kind == "context":
            contexts.add(record.key)
        body = self.record_body(record)
        reader = _READERS.get(record.kind)
        if reader is None:
            return f"unknown kind {record.kind!r}"
        reader(body)
        return None

    def _check_session(
        self,
        record: SessionRecord,
        tip: bytes,
        context: bytes,
        depths: dict[bytes, int],
        contexts: set[bytes],
    ) -> str | None:
        if depths.get(tip) != record.depth:
            return f"half written: it has {record.depth} messages, and its tip is at {depths.get(tip)}"
        if context not in contexts:
            return f"its context {context.hex()} is missing"
        return None
