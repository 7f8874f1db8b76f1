"""One page: its name, where its text is kept, how long it is and how often it changed."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import msgspec

__all__ = ["Page", "in_order", "rendered"]


class Page(msgspec.Struct, frozen=True, gc=False):
    """A named text of a book, as its list has it.

    ``key`` is where its text is kept; ``tokens`` what it counts in a prompt, tags included; ``changes`` how often it was
    changed in the ``syncs`` since it came.

    >>> Page("README.md", "text/1", tokens=100, changes=1, syncs=9).odds
    0.176...
    """

    name: str
    key: str
    tokens: int
    changes: int = 0
    syncs: int = 0

    @property
    def odds(self) -> float:
        """P / (1 - p) for the probability p that it changes until the next sync; half a change is assumed beforehand."""
        return (self.changes + 0.5) / (max(self.syncs, self.changes) - self.changes + 0.5)

    def __repr__(self) -> str:
        return f"Page({self.name!r}, tokens={self.tokens}, changes={self.changes}, syncs={self.syncs})"


def rendered(name: str, text: str) -> str:
    r"""A page as it is sent.

    >>> rendered("a.py", "x = 1")
    '<page name="a.py">\nx = 1\n</page>'
    """
    return f'<page name="{escape(name)}">\n{text}\n</page>'


def in_order(pages: Iterable[Page]) -> list[Page]:
    """The order in which the least is billed again: ascending by (p / (1 - p)) / tokens; equals by name.

    Two neighbours stand right if exchanging them would cost more. A change of the first bills the second again, so with
    odds o and length L the first of a pair belongs in front if o1 * L2 < o2 * L1.

    >>> often, seldom = Page("log", "1", 50, changes=9, syncs=10), Page("law", "2", 50, changes=0, syncs=10)
    >>> [page.name for page in in_order([often, seldom])]
    ['law', 'log']
    """
    return sorted(pages, key=lambda page: (page.odds / max(1, page.tokens), page.name))
