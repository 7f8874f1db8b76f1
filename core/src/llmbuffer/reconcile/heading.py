"""What goes out around the messages of one prompt: tools, system text and params in front, dynamic text behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..breaks import CacheBreak
from ..context import Segment, dynamic_segments
from ..snapshot import Snapshot
from .given import Given
from .heads import changed
from .instructions import Read, read_system
from .policy import Policy
from .recognition import Line
from .tooling import Offer, restriction

if TYPE_CHECKING:
    from ..placing import Dynamic
    from ..session import Session
    from ..state import Anchor
    from .reconciler import Reconciler

__all__ = ["Headed", "Staged", "headed", "together"]


class Headed(NamedTuple):
    """What goes out in front of the messages, what was sent before, and what of it moved without a plan.

    ``last`` are the texts that stand behind all other dynamic ones.
    """

    read: Read
    offer: Offer | None
    arguments: dict[str, Any]
    last: tuple[Segment, ...]
    sent: Snapshot | None
    moved: CacheBreak | None


class Staged(NamedTuple):
    """What the members of a conversation share, and the ``role`` of the one that speaks.

    ``sent`` is the last request of any of them that was observed, ``tail`` where it had its rolling mark. ``observed`` is
    called with the session and the snapshot of this one. ``switched``: the member leaves a prompt of its own for this.
    """

    read: Read
    offer: Offer
    role: Segment
    sent: Snapshot | None
    tail: Anchor | None
    observed: Callable[[Session, Snapshot], None]
    switched: bool = False


def headed(
    reconciler: Reconciler,
    prompt: Given,
    texts: tuple[str, ...] | None,
    tools: Sequence[Any] | None,
    params: Mapping[str, Any],
    policy: Policy,
    staged: Staged | None,
) -> Headed:
    """Tools, system text and params as they go out from now on, and what became of them."""
    line, known = prompt.line, bool(prompt.match.same) or prompt.broken
    before = prompt.line_before if known else Line()
    old, sent, session = before.context, before.sent, reconciler.session
    last: tuple[Segment | None, ...] = ()
    arguments: dict[str, Any] = {}
    if policy.observe:
        offer: Offer | None = line.toolbox.as_given(tools or (), prompt.host)
        read, line.seen, texts = Read(texts or (), ()), (), texts or ()
    else:
        offer = None if tools is None else line.toolbox.offer(tools, prompt.host)
        if staged is not None:
            read, offer = staged.read, staged.offer
        else:
            read, line.seen = read_system(texts or (), before.seen, reconciler.templates, policy)
        arguments, told = ({}, None) if offer is None else restriction(offer, session.dialect, params)
        last = (told, None if staged is None else staged.role)
    system = None if texts is None and staged is None else read.stable
    line.context = reconciler.heading.take_over(system, offer, params, own=not policy.observe)
    reconciler.changes += read.changes
    moved = None if old is None else changed(old, line.context, session.dialect.rules, bool(read.changes))
    if staged is not None and (staged.switched or _same_head(staged.sent, reconciler)):
        moved = None  # by plan, or what another member sent has moved it already
    return Headed(read, offer, arguments, tuple(each for each in last if each is not None), sent, moved)


def _same_head(sent: Snapshot | None, reconciler: Reconciler) -> bool:
    if sent is None:
        return False
    head = reconciler.session._head
    return sent.head.wire == head.node.wire and sent.message_seed == head.message_seed


def together(dynamic: Dynamic | None, head: Headed) -> tuple[Segment, ...]:
    """All dynamic text of a request, each by a name of its own."""
    given = () if dynamic is None else dynamic_segments(dynamic)
    out: dict[str, Segment] = {}
    for segment in (*head.read.moved, *given, *head.last):
        name, number = segment.name, 1
        while name in out:
            number += 1
            name = f"{segment.name}, {number}"
        out[name] = segment if name == segment.name else Segment(name, segment.content, level="turn")
    return tuple(out.values())
