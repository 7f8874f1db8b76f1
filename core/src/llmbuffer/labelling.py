"""Whose request an entry of the ledger is, and which tokens of its prompt belong to which segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .attribution import Labels

if TYPE_CHECKING:
    from .request import Request
    from .session import Session

__all__ = ["labels_of"]


def labels_of(request: Request, target: Session) -> dict[str, Any]:
    """The fields of an entry that say what it is to be attributed to. Labels equal to those before are shared with them."""
    labels, ledger = _labels(target), target.ledger
    if len(ledger) and ledger[-1].labels == labels:
        labels = ledger[-1].labels
    insert, head = request.snapshot.insert, request.head
    return {
        "labels": labels,
        "spans": request.session.family.spans(head),
        "prompt_tokens": request.snapshot.tokens,
        "dynamic_at": 0 if insert is None else head.node.end + insert.after.end,
        "dynamic_tokens": 0 if insert is None else insert.tokens,
    }


def _labels(session: Session) -> Labels:
    agent, task = session._origin
    return Labels(agent=session.name or agent or session.id, task=task, fork=session.id)
