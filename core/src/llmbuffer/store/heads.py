"""Stable contexts that were sent before: what they count in tokens, and until when the provider has them cached.

Nothing is read or written while a request is made. A session asks once when it begins, and notes at ``save``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

from ..chain import Node, ancestor, walk
from ..context import StableContext
from ..errors import StoreError
from ..family import Family
from ..frozen import wire_json
from ..layout import Head, render_head
from ..rules import CacheRules, Dialect
from ..snapshot import MarkAt, Snapshot
from ..state import Sent, State
from .backend import Record
from .records import Compiled, decode
from .rights import needs
from .values import Values

if TYPE_CHECKING:
    from ..session import Session

__all__ = ["Heads", "head_digest"]

_log = logging.getLogger("llmbuffer.store")

# Of the provider's time to live: warmth is written again when what stands there is older than this part of it, so that
# saving a turn costs the turn. A reader thinks the cache colder by so much at most, and never warmer.
_STALE = 1 / 20
_OPENED = 64  # compiled contexts that a process keeps as it read them
_SYSTEM_TOKENS = 2  # that ``render_head`` adds to the count of a system text
_Noted = tuple[bytes, float]  # the wire digest of the head, and when it was sent as far as the store knows
_HeadMark = tuple[int, bool, float]  # depth in the head, whether it is kept long, and when it was sent


class Heads(Values):
    """The part of ``Store`` that keeps compiled stable contexts up to date."""

    _noted: dict[tuple[str, str], _Noted]
    _opened: dict[bytes, tuple[Record, Compiled]]

    def _compiled(self, fingerprint: str, dialect: str) -> Compiled | None:
        """See ``Values``. What was checked and read before is compared with what stands there, which is quicker."""
        found = self.backend.get(self.space, "compiled", self._compiled_name(fingerprint, dialect))
        if found is None:
            return None
        known = self._opened.get(found.key)
        if known is None or known[0] != found:
            known = self._opened[found.key] = (found, decode(self.record_body(found), Compiled))
            while len(self._opened) > _OPENED:
                self._opened.pop(next(iter(self._opened)), None)
        return known[1]

    def head(self, context: StableContext, dialect: Dialect, family: Family) -> Head:
        """Tools and system text, rendered; what was counted before is not counted again.

        Rendered bytes are compared with those that are stored: other bytes (an update of the dialect, another order of
        keys) are counted anew, and are cold. What the provider has cached of them, by the store, the family learns, unless it
        knows better. A store that fails is told by the log.
        """
        try:
            found = self._compiled(context.fingerprint, dialect.name)
        except StoreError as error:
            _log.warning("compiled contexts are not read, because the store failed: %s", error)
            found = None
        if found is None or found.counter != family.counter.name:
            return render_head(context, dialect, family.counter.count)
        counts = iter(found.counts)
        head = render_head(context, dialect, lambda _: next(counts, 0))
        if head.node.depth != len(found.counts) or head_digest(head) != found.digest:
            return render_head(context, dialect, family.counter.count)
        if not family.knows(dialect):
            for snapshot, at in _sent(head, found, dialect.rules):
                family.commit(dialect, snapshot, at, at)
        return head

    @needs("write")
    def handled(self, fingerprint: str, dialect: str, handle: str | None, ttl: float | None = None) -> None:
        """Note what the provider calls a stable context: a ``CachedContent``, a slot file; ``None`` when it is gone.

        ``ttl`` is how many seconds the provider keeps it from when it was last sent.
        """
        found = self._compiled(fingerprint, dialect) or Compiled(fingerprint, dialect)
        lives = found.ttl if ttl is None else ttl
        self.put_compiled(msgspec.structs.replace(found, handle=handle, ttl=lives))

    def note(self, session: Session) -> None:
        """Write down the stable context that the session sent last, if the store does not know; what ``save`` calls.

        A store that fails here is told by the log: what was saved is saved.
        """
        sent, wire = session._state.sent, session._head.node.wire
        if sent is None or sent.snapshot.head.wire != wire:
            return
        key = (session.context.fingerprint, session.dialect.name)
        noted = self._noted.get(key)
        if noted is not None and noted[0] == wire and sent.at - noted[1] < session.dialect.rules.ttl * _STALE:
            return
        try:
            self._write_compiled(session, sent)
            self._noted[key] = (wire, sent.at)
        except StoreError as error:
            _log.warning("the compiled context is not noted, because the store failed: %s", error)

    def _write_compiled(self, session: Session, sent: Sent) -> None:
        context, dialect, head = session.context, session.dialect, session._head
        found = self._compiled(context.fingerprint, dialect.name)
        made = Compiled(
            context.fingerprint,
            dialect.name,
            digest=head_digest(head),
            tools=wire_json(head.tools),
            system=wire_json(head.system),
            tokens=head.node.end,
            counter=session.counter.name,
            counts=tuple(_counts(head.node)),
        )
        if found is not None:
            made = msgspec.structs.replace(made, handle=found.handle, ttl=found.ttl)
            if found.digest == made.digest:  # else other bytes were sent, and these are cold
                made = msgspec.structs.replace(made, warm_at=found.warm_at, marks=found.marks)
        made = _warmer(made, sent, session.dialect.rules)
        if made != found:
            self.put_compiled(made)


def head_digest(head: Head) -> bytes:
    """A digest of everything that is sent of a head, 24 bytes; equal in all processes.

    >>> from llmbuffer import get_dialect
    >>> head = render_head(StableContext("gpt-5.5", "Be kind."), get_dialect("openai"), len)
    >>> len(head_digest(head))
    24
    """
    digest = blake2b(digest_size=24)
    for piece in (head.node.wire, head.message_seed, wire_json(head.tools), wire_json(head.system)):
        digest.update(b"%d:" % len(piece) + piece)
    return digest.digest()


def _counts(node: Node) -> Iterator[int]:
    """What was counted of each tool and each system text, in prompt order."""
    for each in reversed(list(walk(node))):
        yield each.tokens - (_SYSTEM_TOKENS if getattr(each.message, "section", "") == "system" else 0)


def _warmer(made: Compiled, sent: Sent, rules: CacheRules) -> Compiled:
    """The same after another request; breakpoints that were sent earlier, and not with this one, keep their time."""
    marks: dict[int, _HeadMark] = {mark[0]: mark for mark in made.marks}
    for mark in sent.snapshot.marks:
        if mark.in_head:
            marks[mark.node.depth] = (mark.node.depth, mark.long, sent.at)
    long = any(mark[1] for mark in marks.values())
    ttl = rules.ttl_long if long and rules.ttl_long is not None else rules.ttl
    return msgspec.structs.replace(
        made,
        warm_at=sent.at if made.warm_at is None else max(made.warm_at, sent.at),
        ttl=ttl if made.handle is None or made.ttl is None else made.ttl,
        marks=tuple(marks[depth] for depth in sorted(marks)),
    )


def _sent(head: Head, found: Compiled, rules: CacheRules) -> Iterator[tuple[Snapshot, float]]:
    """The requests as far as the head, for a cache that is to know of them; the oldest first."""
    bare = Snapshot(head.node, State.empty().tip, head.message_seed)
    if rules.has_marks:
        for depth, long, at in sorted(found.marks, key=lambda mark: mark[2]):
            mark = MarkAt(ancestor(head.node, depth), in_head=True, long=long)
            yield msgspec.structs.replace(bare, marks=(mark,)), at
    elif (
        found.warm_at is not None and rules.match != "units"
    ):  # units end where a user's input or a reply ends
        yield bare, found.warm_at
