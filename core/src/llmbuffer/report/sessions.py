"""Reports of objects: sessions and their forks, ledgers, the results of a fan-out, the run of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from ..errors import ReportError
from ..fanout import Results
from ..graph import GraphRun
from ..ledger import Ledger, LedgerEntry
from ..prices import Price
from ..rules import Section
from ..session import Session
from .lines import scaled
from .model import Bar, Branch, Report, Stretch, priced

__all__ = ["report"]

Weights = list[tuple[Section, str, int]]


def report(of: Any, *, title: str | None = None, measured: bool | None = None) -> Report:
    """A report of a session, of several (a session and its forks), of a ledger, or of what a fan-out or a graph came to.

    ``title`` heads the page; ``measured`` says whether the usage came from a provider or an engine (``True``) or was
    simulated (``False``). Work is proportional to the requests. Nothing is changed.

    Raises ``ReportError`` for anything else.

    >>> from llmbuffer import Message, Session, StableContext, Usage
    >>> session = Session(StableContext("gpt-5.5", "You are kind."))
    >>> _ = session.request("Hello").observe(Usage(input_tokens=20), Message("assistant", "Hi!"))
    >>> report(session)
    Report('session ...', requests=1, hit_ratio=0.000, breaks=0)
    >>> [stretch.name for stretch in report(session).bars[0].stretches]
    ['system', 'new']
    """
    if isinstance(of, Ledger):
        bars = tuple(_bar(entry, number, "ledger") for number, entry in enumerate(of, 1))
        made = Report(title="ledger", bars=bars, branches=(Branch(id="ledger", name="ledger"),))
    elif isinstance(of, GraphRun):
        sessions = [(key, each.session) for key, each in of.tasks.items() if each.session is not None]
        made = _of_sessions(f"run {of.run_id}", "task graph", sessions)
    elif isinstance(of, Results):
        made = _of_sessions("fan-out", "fan-out", [(each.name, each.session) for each in of])
    else:
        given = _sessions(of)
        made = _of_sessions(f"session {given[0].id}", "session", [(each.name or "", each) for each in given])
    return replace(made, title=made.title if title is None else title, measured=measured)


def _sessions(of: Any) -> list[Session]:
    given = [of] if isinstance(of, Session) else of
    if not isinstance(given, Iterable) or isinstance(given, str | bytes | Mapping):
        raise ReportError(
            f"no report can be made of a {type(of).__name__}: give a session, a ledger, or the results of fan_out or of a "
            "graph; llmbuffer.report.read_report takes files"
        )
    found = list(given)
    if not found or not all(isinstance(each, Session) for each in found):
        kinds = sorted({type(each).__name__ for each in found})
        raise ReportError(f"a report of several takes sessions, at least one: found {kinds}")
    return list(dict.fromkeys(found))


def _of_sessions(title: str, source: str, named: list[tuple[str, Session]]) -> Report:
    branches: list[Branch] = []
    bars: list[Bar] = []
    known = {session.id for _, session in named}
    sent = {session.id: list(session.ledger) for _, session in named}
    for name, session in named:
        parent = session.parent_id
        if parent is not None and parent not in known:
            branches.append(Branch(id=parent, name="session", note="its own requests are not in this report"))
            known.add(parent)
        branches.append(Branch(id=session.id, name=name or session.id, parent=parent))
        bars += _session_bars(session, sent.get(parent or "", []))
    bars.sort(key=lambda bar: bar.at or 0.0)
    numbered = tuple(replace(bar, number=number) for number, bar in enumerate(bars, 1))
    return Report(title=title, source=source, bars=numbered, branches=tuple(_roots_first(branches)))


def _roots_first(branches: list[Branch]) -> list[Branch]:
    return sorted(branches, key=lambda branch: branch.parent is not None)


def _session_bars(session: Session, above: list[LedgerEntry]) -> list[Bar]:
    """The bars of one session; ``above`` is what its parent sent, where that is known."""
    price = session.family.price(session.context.model)
    bars, before, entries = [], 0, list(session.ledger)
    if entries:
        shared = [_kept(entry) for entry in above if entry.at <= entries[0].at]
        before = max(shared, default=0)
    for number, entry in enumerate(entries, 1):
        bars.append(_bar(entry, number, session.id, session, _weights(entry, before), price))
        before = _kept(entry) or before
    return bars


def _bar(
    entry: LedgerEntry,
    number: int,
    branch: str,
    session: Session | None = None,
    weights: Weights | None = None,
    price: Price | None = None,
) -> Bar:
    counted = entry.usage.input_tokens if entry.usage is not None else 0
    shown: tuple[Stretch, ...] = scaled(weights or [], counted)
    bar = Bar(
        number=number,
        at=entry.at,
        branch=branch,
        kind=entry.kind,
        name=(session.name or "") if session is not None else "",
        model=session.context.model if session is not None else "",
        requests=0 if entry.kind == "reused" else 1,
        usage=entry.usage,
        stretches=shown,
        cache_break=entry.cache_break or entry.planned,
        note=_note(entry),
        cost=entry.cost,
    )
    return priced(bar, price)


def _weights(entry: LedgerEntry, before: int) -> Weights:
    """The stretches as the entry counted them: stable ones, history (``before`` tokens of it sent before), new, dynamic."""
    found: Weights = []
    at = 0
    for span in entry.spans:
        found.append(("tools" if span.name == "tools" else "system", span.name, span.end - at))
        at = span.end
    upto = entry.dynamic_at if entry.dynamic_tokens else entry.prompt_tokens
    old = min(max(before, at), upto)
    behind = entry.prompt_tokens - upto - entry.dynamic_tokens
    found += [("messages", "history", old - at), ("messages", "new", upto - old)]
    found += [("messages", "new dynamic", entry.dynamic_tokens), ("messages", "new behind it", behind)]
    return [each for each in found if each[2] > 0]


def _kept(entry: LedgerEntry) -> int:
    """What of a prompt the next one begins with: dynamic text goes."""
    return entry.prompt_tokens - entry.dynamic_tokens


def _note(entry: LedgerEntry) -> str:
    kind = "" if entry.kind == "request" else entry.kind
    if entry.before_tokens:
        kind = f"{kind}, {entry.before_tokens:,} to {entry.after_tokens:,} tokens"
    return ": ".join(filter(None, (kind, entry.reason)))
