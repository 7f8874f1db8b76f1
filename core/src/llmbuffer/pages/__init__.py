"""Stable contexts that are larger than the window: pages in a store, of which a frozen selection is in the prefix.

``Pages`` is a book of named texts, such as the files of a code base. ``select`` puts as many as a budget allows into the
prefix, those that change least first, and gives the model tools to read the rest.
"""

from __future__ import annotations

from .book import Page, Pages, Synced
from .selection import Change, Selection

__all__ = ["Change", "Page", "Pages", "Selection", "Synced"]
