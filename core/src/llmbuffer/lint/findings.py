"""What a lint finds: the rules, and one finding."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec

__all__ = ["RULES", "Finding", "Ignores", "Rule"]

Severity = Literal["error", "warning", "note"]


class Rule(NamedTuple):
    """A rule: how bad what it finds is, what that is, and what to do about it."""

    severity: Severity
    title: str
    fix: str


_TAIL = "give it as dynamic=, or in the user's message, so that it stands behind the history"
RULES: dict[str, Rule] = {
    "LB001": Rule("error", "a clock in a stable place", _TAIL),
    "LB002": Rule("error", "a random or passing value in a stable place", _TAIL),
    "LB003": Rule("error", "items without a fixed order in a stable place", "sort them: sorted(...)"),
    "LB004": Rule("warning", "JSON without a fixed order of keys in a stable place", "give json.dumps(..., sort_keys=True)"),
    "LB005": Rule("note", "a value of the machine in a stable place", f"machines share no cache if it differs: {_TAIL}"),
    "LB006": Rule(
        "warning",
        "a history that loses its oldest messages",
        "compact seldom and down to a low-water mark: each message dropped in front breaks the cache once more",
    ),
    "LB007": Rule(
        "warning",
        "a history that is rewritten in front",
        "append instead: what stands behind a change is billed again",
    ),
    "LB008": Rule("warning", "a place in a template for what changes", _TAIL),
    "LB101": Rule("warning", "a time or date in a stable place of a prompt", _TAIL),
    "LB102": Rule("warning", "a uuid in a stable place of a prompt", _TAIL),
    "LB103": Rule("warning", "a random id in a stable place of a prompt", _TAIL),
    "LB104": Rule("warning", "a counter in a stable place of a prompt", _TAIL),
    "LB105": Rule("warning", "a printed set or object in a stable place of a prompt", "write its items out, sorted"),
    "LB106": Rule("warning", "looked-up text in a stable place of a prompt", _TAIL),
    "LB901": Rule("error", "a file that cannot be read", "see what the message says"),
    "LB902": Rule("error", "source that cannot be parsed", "mend it, or exclude the file"),
}  # fmt: skip


class Finding(msgspec.Struct, frozen=True, order=True):
    """One finding, in a file (``path``), at a ``line`` and a ``column`` that count from 1.

    ``cell`` is the number of a notebook's cell, to which ``line`` then belongs; ``place`` is where it stands in a request
    body, such as ``tools[0].description``, character 12. ``message`` tells what was found and holds no text of a prompt.

    >>> found = Finding("a.py", 3, 5, "LB001", "datetime.datetime.now() reaches system= in line 4")
    >>> found.severity, str(found)
    ('error', 'a.py:3:5: LB001 datetime.datetime.now() reaches system= in line 4')
    """

    path: str
    line: int
    column: int
    rule: str
    message: str
    cell: int | None = None
    place: str | None = None

    @property
    def severity(self) -> Severity:
        """``error``, ``warning`` or ``note``."""
        return RULES[self.rule].severity

    @property
    def fix(self) -> str:
        """What to do."""
        return RULES[self.rule].fix

    @property
    def where(self) -> str:
        """File, cell, line and column."""
        cell = "" if self.cell is None else f":cell {self.cell}"
        return f"{self.path}{cell}:{self.line}:{self.column}"

    def __str__(self) -> str:
        return f"{self.where}: {self.rule} {self.message}"


_COMMENT = re.compile(r"#\s*llmbuffer:\s*ignore(?P<file>-file)?(?:\[(?P<rules>[A-Z0-9,\s]+)\])?")


class Ignores:
    """The comments of a source that say what is not to be reported.

    ``# llmbuffer: ignore[LB001, LB003]`` holds for its line, without brackets for all rules; ``ignore-file`` for the file.

    >>> Ignores("now = time.time()  # llmbuffer: ignore[LB001]").hides("LB001", [1])
    True
    """

    def __init__(self, source: str) -> None:
        self._lines: dict[int, frozenset[str] | None] = {}
        self._file: set[str] | None = set()
        if "llmbuffer:" not in source:
            return
        for number, rules, whole in _comments(source):
            if not whole:
                self._lines[number] = rules
            elif rules is None:
                self._file = None
            elif self._file is not None:
                self._file |= rules

    def hides(self, rule: str, lines: range | list[int]) -> bool:
        """Whether a finding of this rule is ignored that has to do with these lines."""
        if self._file is None or rule in self._file:
            return True
        return any(
            number in self._lines and (self._lines[number] is None or rule in (self._lines[number] or ()))
            for number in lines
        )


def _comments(source: str) -> Iterator[tuple[int, frozenset[str] | None, bool]]:
    for number, line in enumerate(source.splitlines(), 1):
        found = _COMMENT.search(line)
        if found is not None:
            named = found["rules"]
            rules = None if named is None else frozenset(re.findall(r"\w+", named))
            yield number, rules, found["file"] is not None
