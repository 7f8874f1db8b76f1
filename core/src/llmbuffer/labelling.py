"""Whose request an entry of the ledger is, and which tokens of its prompt belong to which segment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from .attribution import Labels, Span
from .layout import Head
from .ledger import LedgerEntry

if TYPE_CHECKING:
    from .request import Request
    from .session import Session

__all__ = ["labelled"]


def labelled(entry: LedgerEntry, request: Request, target: Session) -> LedgerEntry:
    """The entry with what it is to be attributed to. Equal labels and spans are shared with the entry before it."""
    labels, spans = _labels(target), _spans(request.head)
    before = target.ledger[-1] if len(target.ledger) else None
    if before is not None:
        labels = before.labels if before.labels == labels else labels
        spans = before.spans if before.spans == spans else spans
    insert, head = request.snapshot.insert, request.head.node.end
    return replace(
        entry,
        labels=labels,
        spans=spans,
        prompt_tokens=request.snapshot.tokens,
        dynamic_at=0 if insert is None else head + insert.after.end,
        dynamic_tokens=0 if insert is None else insert.tokens,
    )


def _labels(session: Session) -> Labels:
    agent, task = session._origin
    return Labels(agent=session.name or agent or session.id, task=task, fork=session.id)


def _spans(head: Head) -> tuple[Span, ...]:
    """Where tools and each stable segment end, in tokens from the start."""
    nodes, node = [], head.node
    while node.parent is not None:
        nodes.append(node)
        node = node.parent
    tools = len(head.tools)
    spans = [Span("tools", nodes[-tools].end)] if tools else []
    segments = nodes[: len(nodes) - tools]
    return (*spans, *(Span(_name(each.message), each.end) for each in reversed(segments)))


def _name(block: object) -> str:
    return str(getattr(block, "label", ""))
