"""The prefix guard: a watcher that reads the body of every observed request.

It takes from a session only which requests belong to one line (its id, its parent, how many requests lie behind). What
was sent is read from the bodies. A line keeps two numbers a request, so that long sessions stay cheap to watch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from threading import Lock
from typing import Any, NamedTuple
from weakref import ref

from ..frozen import FrozenDict
from ..observing import Observation
from ..request import Request
from ..session import Session
from .prefix import Block, blocks_of, body_laid_out, difference, dynamic_wires, sections

__all__ = ["PrefixGuard"]

_REMEMBERED = 50_000  # digested messages; beyond it the memo starts anew
_SWEEP = 256  # new lines between two looks for lines that nobody can continue
_DIGEST_BYTES = 16


class _Checkpoint(NamedTuple):
    """What a request had sent: so many blocks, and the digest over them."""

    blocks: int
    digest: bytes


class _Known(NamedTuple):
    """A checkpoint, and how often its history had been compacted until then."""

    sent: _Checkpoint
    compactions: int


class _Sent(NamedTuple):
    """A body, and the dynamic texts announced with it. No request, which would keep its session alive."""

    body: Mapping[str, Any]
    dynamic: list[bytes]


class _Line:
    """The requests of one session: checkpoints by the number of requests that lie behind, and the newest request."""

    def __init__(self, session: Session, request: Request) -> None:
        self.session = ref(session)
        self.parent_id = session.parent_id
        self.family = session.family
        self.checkpoints: dict[int, _Known] = {}
        self.newest = _Sent(request.body, dynamic_wires(request))


class PrefixGuard:
    """Called with every observed request; collects in ``moves`` what did not begin with the request before it.

    A fork has to begin with what its parent had sent when it was made. After a move the baseline is set anew: one fault,
    one entry. A compaction that the session recorded begins a new line. A model, tools or system text that change are moves
    too, planned or not.

    >>> PrefixGuard().take()
    []
    """

    def __init__(self) -> None:
        self.moves: list[str] = []
        self._lines: dict[str, _Line] = {}
        self._memo: dict[int, tuple[object, bytes]] = {}
        self._swept_at = 0
        self._lock = Lock()

    def __call__(self, request: Request, observation: Observation) -> None:
        """Compare a request that was observed."""
        with self._lock:
            self._watch(request, observation.session)

    def take(self) -> list[str]:
        """The moves since the last call."""
        with self._lock:
            moves, self.moves = self.moves, []
            return moves

    def sweep(self) -> None:
        """Forget the lines that no living session can continue."""
        with self._lock:
            self._sweep()

    def _sweep(self) -> None:
        alive = {id(line.family) for line in self._lines.values() if line.session() is not None}
        self._lines = {name: line for name, line in self._lines.items() if id(line.family) in alive}
        self._swept_at = len(self._lines)

    def _watch(self, request: Request, target: Session) -> None:
        made_by, behind = request.session, request.base.requests
        digests = self._digests(request)
        self._compare(request, made_by, behind, digests)
        if target.id not in self._lines:
            if len(self._lines) - self._swept_at >= _SWEEP:
                self._sweep()
            self._lines[target.id] = _Line(target, request)
            if behind == 0:
                head = _checkpoint(digests, self._head_length(request))
                self._lines[target.id].checkpoints[0] = _Known(head, _compactions(request))
        line = self._lines[target.id]
        whole = _checkpoint(digests, len(digests) // _DIGEST_BYTES)
        line.checkpoints[behind + 1] = _Known(whole, _compactions(request))
        line.newest = _Sent(request.body, dynamic_wires(request))

    def _compare(self, request: Request, made_by: Session, behind: int, digests: bytes) -> None:
        known = self._before(made_by, behind)
        if not known or any(
            _checkpoint(digests, line.checkpoints[behind].sent.blocks) == line.checkpoints[behind].sent
            or line.checkpoints[behind].compactions
            != _compactions(request)  # planned, and the session says so
            for line in known
        ):
            return
        name = made_by.name or made_by.id
        older = known[0].newest
        found = difference(
            _flat(older)[: known[0].checkpoints[behind].sent.blocks],
            _flat(_Sent(request.body, dynamic_wires(request))),
        )
        self.moves.append(
            f"request {behind} of session {name!r} does not begin with the one before it: "
            + (found or "the request before that one had moved too")
        )

    def _before(self, session: Session, behind: int) -> list[_Line]:
        """The lines that hold what was sent when so many requests lay behind: the session's own, or its parent's.

        Where a parent in between never sent anything, any line of the family may be the one; and none where a host hands
        over the prompt.
        """
        name, parent = session.id, session.parent_id
        while True:
            line = self._lines.get(name)
            if line is not None and behind in line.checkpoints:
                return [line]
            parent = parent if line is None else line.parent_id
            if parent is None or parent not in self._lines:
                break
            name = parent
        if behind == 0 and getattr(session, "_reconciler", None) is not None:
            return []  # a host's agents begin with system prompts of their own, whatever they were forked from
        lines = self._lines.values()
        return [line for line in lines if line.family is session.family and behind in line.checkpoints]

    def _digests(self, request: Request) -> bytes:
        """The digests of all blocks, one after the other."""
        body, memo = request.body, self._memo
        items = [_digest(str(body.get("model")).encode())]
        for section, found in _items(body):
            for item in found:
                known = memo.get(id(item))
                items.append(known[1] if known is not None and known[0] is item else self._of(item, section))
        if request.dynamic:
            _cut_last(items, b"".join(map(_digest, dynamic_wires(request))))
        return b"".join(items)

    def _of(self, item: Any, section: str) -> bytes:
        digests = b"".join(_digest(block.wire) for block in blocks_of(item, section))
        if isinstance(item, FrozenDict):  # nobody can change it, so its digests stay true
            if len(self._memo) >= _REMEMBERED:
                self._memo.clear()
            self._memo[id(item)] = (item, digests)
        return digests

    def _head_length(self, request: Request) -> int:
        """Blocks of model, tools and system text, the text that leads the messages included."""
        leading = int(request.dialect.system_in_messages and bool(request.context.segments))
        total = 1
        for section, found in _items(request.body):
            if section == "messages":
                total += sum(len(self._of(item, section)) for item in found[:leading]) // _DIGEST_BYTES
            else:
                total += len(found)
        return total


def _compactions(request: Request) -> int:
    return request.placed.state.archive.compactions


def _items(body: Mapping[str, Any]) -> list[tuple[str, Sequence[Any]]]:
    """The sections of a body, each with its items; a text or an object alone is one."""
    fields = ((section, body[key]) for section, key in sections(body))
    return [(section, [value] if isinstance(value, str | Mapping) else value) for section, value in fields]


def _flat(sent: _Sent) -> list[Block]:
    return [block for item in body_laid_out(sent.body, sent.dynamic) for block in item]


def _cut_last(items: list[bytes], run: bytes) -> None:
    """Take the last occurrence of ``run`` out of the messages, and its message if only its own fields are left."""
    for number in range(len(items) - 1, -1, -1):
        at = items[number].rfind(run)
        if at > 0 and at % _DIGEST_BYTES == 0:
            rest = items[number][:at] + items[number][at + len(run) :]
            items[number : number + 1] = [rest] if len(rest) > _DIGEST_BYTES else []
            return


def _checkpoint(digests: bytes, blocks: int) -> _Checkpoint:
    end = min(blocks * _DIGEST_BYTES, len(digests))
    return _Checkpoint(end // _DIGEST_BYTES, _digest(memoryview(digests)[:end]))


def _digest(data: bytes | memoryview) -> bytes:
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()
