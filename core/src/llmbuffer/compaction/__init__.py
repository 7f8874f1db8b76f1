"""Making prompts smaller: hooks, the guard that checks them, and the arithmetic that says when it pays.

``Compaction`` goes into ``Session(…, compaction=…)``. Ready-made hooks: ``ClipToolOutput`` at commit time,
``ElideToolResults``, ``DropReasoning`` and ``Summarizer`` between turns, ``Truncator`` where the next request does not fit;
any callable ``(messages, budget) -> messages`` besides.
"""

from __future__ import annotations

from .base import Budget, Compaction, CompactionWarning, Hook, original_id
from .clip import ClipToolOutput
from .documents import Document
from .economics import Cut, Decision, Outlook, Terms, decide
from .elide import ElideToolResults
from .horizon import Horizon
from .reasoning import DropReasoning
from .summarize import Summarizer
from .truncate import Truncator

__all__ = [
    "Budget",
    "ClipToolOutput",
    "Compaction",
    "CompactionWarning",
    "Cut",
    "Decision",
    "Document",
    "DropReasoning",
    "ElideToolResults",
    "Hook",
    "Horizon",
    "Outlook",
    "Summarizer",
    "Terms",
    "Truncator",
    "decide",
    "original_id",
]
