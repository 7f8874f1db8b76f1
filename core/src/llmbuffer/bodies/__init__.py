"""Request bodies of any wire format, as pieces in the order in which the provider renders them.

A body is what an SDK sends, whoever made it. ``pieces`` takes it apart: tools, system text, content blocks, tool calls.
``read_prompt`` makes a ``Snapshot`` of it, which the cache models understand. Breakpoints are not part of a piece's
bytes, and a string counts as one text part, since providers see no difference.
"""

from __future__ import annotations

from .formats import WIRES, Wire, pieces
from .likely import likely_dialect
from .piece import Piece
from .prompt import Grow, read_prompt

__all__ = ["WIRES", "Grow", "Piece", "Wire", "likely_dialect", "pieces", "read_prompt"]
