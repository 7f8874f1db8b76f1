"""Pages that stand in a prefix: chosen once, in a fixed order, and brought up to date in one of two ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import unified_diff
from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from ..context import Level, Segment
from ..errors import MessageError
from ..frozen import FrozenDict
from ..messages import Message
from ..tools import Tool
from .page import Page, in_order, rendered

if TYPE_CHECKING:
    from .book import Pages

__all__ = ["Change", "Selection", "select"]

_LISTED = 1_000  # names that one listing shows

_READ = Tool.of(
    {
        "name": "read_page",
        "description": "Read a page as it is now, or some of its lines. Pages that are not in the prompt are read this way.",
        "parameters": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "As list_pages shows it."},
                "first": {"type": "integer", "minimum": 1, "description": "The first line, from 1 on."},
                "last": {"type": "integer", "minimum": 1, "description": "The last line."},
            },
            "required": ["name"],
        },
    }
)
_LIST = Tool.of(
    {
        "name": "list_pages",
        "description": "List the names of all pages, with their length in tokens.",
        "parameters": {
            "type": "object",
            "properties": {"prefix": {"type": "string", "description": "Only names that begin so."}},
        },
    }
)


class Change(NamedTuple):
    """A page that is not any more what the prompt says, and the tokens that are billed again if it is changed there.

    They count from the start of the page to the end of the selection, and what the caller said lies behind it.
    """

    page: str
    tokens: int


@dataclass(frozen=True)
class Selection:
    """A frozen choice of pages: ``segments`` for the stable context, ``tools`` and ``executor`` to read the others.

    ``pages`` are those in the prompt, in their order there; ``tokens`` what they take, at most ``budget``. Nothing that is
    done to the book changes a selection: ``changed`` tells what is out of date, ``refreshed`` and ``delta`` are the two ways on.

    >>> from llmbuffer import Session, StableContext
    >>> from llmbuffer.pages import Pages
    >>> from llmbuffer.store import open_store
    >>> book = Pages(open_store("memory:"), "repo")
    >>> _ = book.sync({"law": "Be kind to all who ask.", "log": "Rain."})
    >>> chosen = book.select(budget=500)
    >>> session = Session(StableContext("gpt-5.5", chosen.segments, chosen.tools))
    >>> _ = book.put("log", "Sun.")
    >>> [(change.page, change.tokens < chosen.tokens) for change in chosen.changed()]
    [('log', True)]
    >>> message, chosen = chosen.delta()
    >>> session.append(message)
    >>> chosen.changed(), chosen.executor["read_page"]("log")
    ((), 'Sun.')
    """

    book: Pages = field(repr=False, compare=False)
    budget: int
    level: Level
    pages: tuple[Page, ...]
    segments: tuple[Segment, ...] = field(repr=False)
    told: Mapping[str, str | None] = field(default_factory=FrozenDict, repr=False)

    @property
    def tokens(self) -> int:
        """Tokens of all its segments, as the book's counter counts."""
        return sum(page.tokens for page in self.pages)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its pages, in prompt order."""
        return tuple(page.name for page in self.pages)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """``read_page(name, first, last)`` and ``list_pages(prefix)``; the same for every selection of every book."""
        return (_READ, _LIST)

    @property
    def executor(self) -> dict[str, Callable[..., Any]]:
        """What runs the tools, for ``respond(tools=…)``: pages as they are now. A new ``dict`` each time."""
        return {"read_page": self._read_page, "list_pages": self._list_pages}

    def _read_page(self, name: str, first: int = 1, last: int | None = None) -> str:
        text = self.book.read(name)
        if first == 1 and last is None:
            return text
        return "".join(text.splitlines(keepends=True)[max(0, first - 1) : last])

    def _list_pages(self, prefix: str = "") -> str:
        found = [page for page in self.book.pages if page.name.startswith(prefix)]
        lines = [f"{page.name} ({page.tokens} tokens)" for page in found[:_LISTED]]
        if len(found) > _LISTED:
            lines.append(f"… and {len(found) - _LISTED} more: give a longer prefix")
        return "\n".join(lines) or "no page has such a name"

    # What is out of date

    def changed(self, book: Pages | None = None, *, behind: int = 0) -> tuple[Change, ...]:
        """Pages that differ from what the model was told of them, in prompt order; empty if none does.

        ``book`` (default: its own) is what to compare with. ``behind`` are the tokens of the prompt that follow the selection
        (other segments, ``session.tip.end``), which are billed again as well. Several changes taken in at once cost what the
        first of them says.
        """
        current = {page.name: page for page in (book or self.book).pages}
        lengths = [current[page.name].tokens if page.name in current else 0 for page in self.pages]
        rest = list(accumulate(reversed(lengths)))[::-1]
        return tuple(
            Change(page.name, tokens + behind)
            for page, tokens in zip(self.pages, rest, strict=True)
            if self._differs(page, current.get(page.name))
        )

    def _differs(self, page: Page, now: Page | None) -> bool:
        return (None if now is None else now.key) != self.told.get(page.name, page.key)

    def refreshed(self) -> Selection:
        """The same pages in the same order as they are now; every byte before the first that changed stays.

        For ``session.thaw`` and ``session.update(system=…)``, or for a new session. Pages that are gone, and those that the
        budget has no more room for, are left out.
        """
        current = {page.name: page for page in self.book.pages}
        kept: list[Page] = []
        for page in self.pages:
            now = current.get(page.name)
            if now is not None and sum(each.tokens for each in kept) + now.tokens <= self.budget:
                kept.append(page if now.key == page.key else now)
        return _made(self.book, self.budget, self.level, kept)

    def delta(self) -> tuple[Message, Selection] | None:
        """A user message that tells what has changed, for ``session.append``, and the selection that knows; ``None`` if nothing.

        The prefix stays as it is: the message is a durable part of the history. A page is told as a difference to what was
        told last, or in full where that is shorter.
        """
        current = {page.name: page for page in self.book.pages}
        stale = [page for page in self.pages if self._differs(page, current.get(page.name))]
        if not stale:
            return None
        told, texts = dict(self.told), list[str]()
        for page in stale:
            now = current.get(page.name)
            texts.append(self._told(page, now))
            told[page.name] = None if now is None else now.key
        name = escape(self.book.name)
        text = f'<changed book="{name}">\nThese pages have changed since they were given.\n{"".join(texts)}</changed>'
        return Message("user", text), replace(self, told=FrozenDict(told))

    def _told(self, page: Page, now: Page | None) -> str:
        name = escape(page.name)
        if now is None:
            return f'<page name="{name}" removed="true"/>\n'
        text = self.book.text(now.key)
        full = rendered(page.name, text) + "\n"
        before = self._last_told(page)
        if before is None:
            return full
        lines = unified_diff(_split(before), _split(text), "before", "now", n=2)
        short = f'<diff page="{name}">\n{"".join(lines)}</diff>\n'
        return min(full, short, key=self.book.counter.count)

    def _last_told(self, page: Page) -> str | None:
        """The text that the model knows, if it was kept: that of the prefix, but not those of earlier deltas."""
        if page.name in self.told:
            return None
        segment = self.segments[self.pages.index(page)]
        return segment.content.split("\n", 1)[1].removesuffix("\n</page>")


def select(
    book: Pages, budget: int, pinned: tuple[str, ...], prefer: Mapping[str, float], level: Level
) -> Selection:
    """Choose pages for a prefix, at most ``budget`` tokens of them, and freeze them in the order that bills least again.

    ``pinned`` pages come in whatever they cost; then those that ``prefer`` (name to weight; default 0) gives most, and among
    equals those that change least, by their history. ``level`` is that of the segments. The same book gives the same bytes.

    Raises ``MessageError`` for pinned pages that the book does not have, and if they alone take more than the budget.
    """
    pages = {page.name: page for page in book.pages}
    missing = sorted(set(pinned) - pages.keys())
    if missing:
        raise MessageError(f"book {book.name!r} has no pages {missing}: pin pages that it has")
    chosen = [pages[name] for name in sorted(set(pinned))]
    used = sum(page.tokens for page in chosen)
    if used > budget:
        raise MessageError(
            f"the pinned pages take {used:,} tokens and the budget is {budget:,}: pin fewer, or give more"
        )
    others = [page for page in pages.values() if page.name not in pinned]
    for page in sorted(others, key=lambda page: (-prefer.get(page.name, 0.0), page.odds, page.name)):
        if used + page.tokens <= budget:
            chosen.append(page)
            used += page.tokens
    return _made(book, budget, level, in_order(chosen))


def _made(book: Pages, budget: int, level: Level, pages: list[Page]) -> Selection:
    segments = (
        Segment(f"{book.name}/{page.name}", rendered(page.name, book.text(page.key)), level=level)
        for page in pages
    )
    return Selection(book, budget, level, tuple(pages), tuple(segments))


def _split(text: str) -> list[str]:
    return [line + "\n" for line in text.split("\n")]
