"""Sessions and nodes in Redis: appending them whole or not at all, and walking a history."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ...errors import StoreError
from ..backend import ROOT, MissingNodeError, NodeRow, Record, SessionRow, StaleError
from .base import BYTES, ROWS, RedisBase
from .rows import RING, Keys, link_of, node_of, packed_meta, ring_holds, session_of
from .scripts import APPEND, KIND_KEYS, RELEASE, SPACE_KEYS, WALK

__all__ = ["RedisSessions"]

_GUARD_SECONDS = 60  # between two slices of an append; when they are over, a sweep takes what its writer left
_BEGINNING = -1


class _Unsure(NamedTuple):
    """A save without an answer, and the token that tells it from an equal one of another writer."""

    place: tuple[object, ...]  # key, tip, revision and context: sealed once more, a body has other bytes
    token: bytes


class RedisSessions(RedisBase):
    """The part of ``RedisBackend`` that keeps sessions and nodes."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._unsure: dict[tuple[bytes, bytes], _Unsure] = {}

    def append(
        self,
        space: bytes,
        rows: Sequence[NodeRow],
        session: SessionRow | None,
        records: Sequence[Record] = (),
    ) -> int:
        """See ``Backend``. If a slice fails, those before it are reachable from no session, and the next sweep takes them.

        Raises ``StoreError`` where an answer was lost and it cannot be told any more whether this save is in.
        """
        _check_widths(rows, session)
        keys, slices, extra = self.keys(space), _slices(rows), _Records(records)
        known = None if session is None else self._unsure.get((space, session.key))
        again = known is not None and session is not None and known.place == session[:4]
        token = known.token if known is not None and again else secrets.token_bytes(8)
        held: list[bytes] = []
        added = 0
        try:
            for part in slices[:-1]:
                held += _leaves(part)
                staged = [*_head(token, session), len(part), 0, len(held), 0, _GUARD_SECONDS, 1]
                answer = self.link.run_told(APPEND, keys.all, [*staged, *_told(part), *held])
                added += self._said(space, session, token, answer, staged=True)
            last = [*_head(token, session), len(slices[-1]), len(records), 0, len(held), 0, 0]
            values = [*last, *_told(slices[-1]), *extra.values, *held]
            answer = self.link.run_told(APPEND, keys.all + extra.keys(keys), values)
            return added + self._said(space, session, token, answer)
        except BaseException as error:
            if session is not None and not isinstance(error, StaleError | MissingNodeError):
                self._unsure[space, session.key] = _Unsure(session[:4], token)
            if held:
                self._let_go(keys, token, held)
            raise

    def _let_go(self, keys: Keys, token: bytes, held: list[bytes]) -> None:
        try:
            self.link.run(RELEASE, keys.all, [token, *held])
        except StoreError:  # their time will be over by itself
            return

    def _said(
        self,
        space: bytes,
        session: SessionRow | None,
        token: bytes,
        answer: tuple[list[Any], bool],
        *,
        staged: bool = False,
    ) -> int:
        (word, found), lost = answer
        if word == b"missing":
            raise MissingNodeError(f"node {found.hex()} is not stored")
        if word == b"done" and staged:
            return int(found)
        known = None if session is None else self._unsure.pop((space, session.key), None)
        if word == b"done":
            return int(found)
        assert session is not None, "only a session is stale"
        stands = None if found is None else session_of(session.key, found)
        if known is not None and known.token != token and ring_holds(found or b"", known.token):
            raise StoreError(
                f"the answer to the last save of session {session.key!r} was lost, and it is in, while this one is not: "
                "load the session, and append again what came after"
            )
        ours_may_be_in = lost or (known is not None and known.token == token)
        if ours_may_be_in and stands is not None and stands.revision >= session.revision + RING:
            raise StoreError(
                f"the answer to this save of session {session.key!r} was lost, and others have saved it often since: it may "
                "be in or not; load the session and look"
            )
        raise StaleError(stands)

    def history(self, space: bytes, key: bytes) -> tuple[SessionRow, list[NodeRow]] | None:
        """See ``Backend``. Long histories are read in slices: nodes never change, and it begins anew if the session did."""
        while True:
            found = self._walk(space, b"=" + key, b"", _BEGINNING)
            if not found:
                return None
            session, rows = session_of(key, found[0]), found[1]
            while rows and (last := link_of(rows[-2])).parent != ROOT:
                more = self._walk(space, b"", last.parent, last.seq)[1]
                if not more:
                    break
                rows += more
            whole = not rows or link_of(rows[-2]).parent == ROOT
            if (whole and (rows or session.tip == ROOT)) or self._value(space, key) == found[0]:
                break
        nodes = [node_of(*rows[at : at + 3]) for at in range(0, len(rows), 3)]
        nodes.reverse()
        return session, nodes

    def _walk(self, space: bytes, session: bytes, at: bytes, behind: int) -> Any:
        keys = self.keys(space)
        return self.link.run(
            WALK, [keys.sessions, keys.links, keys.bodies], [session, at, behind, ROWS, BYTES]
        )

    def _value(self, space: bytes, key: bytes) -> Any:
        return self.link.ask(lambda client: client.hget(self.keys(space).sessions, key))

    def session(self, space: bytes, key: bytes) -> SessionRow | None:
        """See ``Backend``."""
        found = self._value(space, key)
        return None if found is None else session_of(key, found)

    def sessions(self, space: bytes) -> Iterator[SessionRow]:
        """See ``Backend``."""
        found = dict(self.scan(self.keys(space).sessions))
        for key, value in sorted(found.items(), key=lambda item: item[1][:8]):
            yield session_of(key, value)

    def nodes(self, space: bytes) -> Iterator[NodeRow]:
        """See ``Backend``: those that were there at the beginning and still are."""
        keys = self.keys(space)
        until = int(self.link.ask(lambda client: client.hget(keys.state, "seq")) or 0)
        links = {digest: link_of(link) for digest, link in self.scan(keys.links)}
        order = sorted((link.seq, digest) for digest, link in links.items() if link.seq <= until)
        for at in range(0, len(order), ROWS // 2):
            part = [digest for _, digest in order[at : at + ROWS // 2]]
            for each in self.with_bodies(part, keys.links, keys.bodies):
                row = node_of(*each)
                yield row if row.parent == ROOT or row.parent in links else row._replace(parent=b"")


def _head(token: bytes, session: SessionRow | None) -> list[Any]:
    if session is None:
        return [token, "", b"", ROOT, b"", b""]
    return [token, session.revision, session.key, session.tip, session.context, session.body]


def _told(rows: Sequence[NodeRow]) -> list[bytes]:
    return [field for row in rows for field in (row.digest, row.parent, row.note, row.body)]


class _Records:
    """Records as arguments of a script, and the keys of their kinds."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._kinds = list(dict.fromkeys(record.kind for record in records))
        self.values: list[Any] = []
        for record in records:
            first = len(SPACE_KEYS) + len(KIND_KEYS) * self._kinds.index(record.kind) + 1
            meta, expires = packed_meta(record)
            self.values += [first, record.kind, record.key, meta, record.body, expires]

    def keys(self, keys: Keys) -> list[str]:
        """Behind those of the space."""
        return [name for kind in self._kinds for name in keys.of(kind)]


def _check_widths(rows: Sequence[NodeRow], session: SessionRow | None) -> None:
    odd = [row.digest for row in rows if len(row.digest) != len(ROOT) or len(row.parent) != len(ROOT)]
    if session is not None and len(session.tip) != len(ROOT):
        odd.append(session.tip)
    if odd:
        raise StoreError(
            f"{odd[0]!r} is no digest of {len(ROOT)} bytes, or its parent is none: give those of an Envelope"
        )


def _slices(rows: Sequence[NodeRow]) -> list[list[NodeRow]]:
    """The rows in parts that a script takes at once; at least one."""
    parts: list[list[NodeRow]] = [[]]
    room = BYTES
    for row in rows:
        if parts[-1] and (len(parts[-1]) == ROWS or room < len(row.body)):
            parts.append([])
            room = BYTES
        parts[-1].append(row)
        room -= len(row.body)
    return parts


def _leaves(rows: Sequence[NodeRow]) -> list[bytes]:
    """Those that no other row hangs on."""
    parents = {row.parent for row in rows}
    return [row.digest for row in rows if row.digest not in parents]
