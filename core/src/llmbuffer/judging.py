"""Whether a request that was answered broke the cache: by itself, by plan, or by the provider's doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from .breaks import FIXES, CacheBreak, Cause, diagnose
from .breaks.served import extra_cost, tolerance
from .cache import Lookup
from .freezing import moved_params
from .preflight import unmarked
from .rules import Section
from .snapshot import overlap

if TYPE_CHECKING:
    from .ledger import LedgerEntry
    from .observing import Answer
    from .request import Request
    from .session import Session

__all__ = ["Verdict", "judge", "kept_tokens"]

# Faults that last until somebody mends them: the next request does not bring them about anew.
_LASTING = frozenset({"unreported", "below-minimum", "breakpoint-missing"})
_LARGEST_MINIMUM = 4096  # tokens below which some model of a provider that bills writes caches nothing


class Verdict:
    """``alarm`` is a break that nobody planned, ``planned`` one that somebody did; ``lasting`` a fault that goes on."""

    __slots__ = ("alarm", "lasting", "planned")

    def __init__(self, alarm: CacheBreak | None, planned: CacheBreak | None, lasting: str) -> None:
        self.alarm, self.planned, self.lasting = alarm, planned, lasting


def kept_tokens(request: Request) -> int:
    """Tokens that the cache held of what the session had sent before: to be asked before the request is entered.

    Asked only where the prompt was moved, by plan or by params; otherwise 0.
    """
    sent = request.base.sent
    if sent is None or not (_planned(request) or _moved_param(request)):
        return 0
    return request.session.family.look(request.dialect, sent.snapshot, request.at).read_tokens


def judge(request: Request, target: Session, lookup: Lookup, answer: Answer, kept: int) -> Verdict:
    """Compare what a warm cache would have served with what the provider reported."""
    planned = _by_plan(request, target, lookup, answer, kept)
    found = None if request.placed.compacted is not None else request.moved
    if found is None and planned is None:
        found = _by_params(request, lookup, answer, kept) or _by_marks(request, lookup, answer)
    if found is None:
        price = request.session.family.price(request.context.model)
        found = diagnose(lookup, answer.usage, request.dialect.rules, price, answer.diagnosis)
        found = _too_short(request, target, lookup, answer, found)
    lasting = found.cause if found is not None and found.cause in _LASTING else ""
    before = _last_request(target)
    if lasting and before is not None and before.lasting == lasting:
        found = None  # one fault, one alarm
    return Verdict(found, planned, lasting)


# What was planned


def _planned(request: Request) -> Cause | None:
    """The planned break that this request is the first to pay for."""
    sent, session = request.base.sent, request.session
    if request.placed.compacted is not None:
        return "compacted"
    epoch = sent.epoch if sent is not None else _last_epoch(session)
    if epoch is None or session.epoch <= epoch:
        return None
    kinds = (entry.kind for entry in reversed(list(session.ledger)) if entry.kind in ("compacted", "thawed"))
    return "compacted" if next(kinds, "thawed") == "compacted" else "thawed"


def _by_plan(
    request: Request, target: Session, lookup: Lookup, answer: Answer, kept: int
) -> CacheBreak | None:
    cause, usage = _planned(request), answer.usage
    if cause is None or usage is None:
        return None
    if request.base.sent is None:  # the history was rendered anew, for a model with other rules
        last = _last_request(target)
        lost = 0 if last is None or last.usage is None else last.usage.input_tokens - usage.cache_read_tokens
    else:
        lost = _scaled(kept, lookup, usage.input_tokens) - usage.cache_read_tokens
    return _record(request, cause, "messages", max(0, lost))


# What the request itself did


def _moved_param(request: Request) -> str | None:
    sent, context = request.base.sent, request.context
    if sent is None or sent.context is not context or not (sent.params or request.params):
        return None
    before, now = {**context.params, **sent.params}, {**context.params, **request.params}
    return moved_params(before, now, request.dialect.rules)


def _by_params(request: Request, lookup: Lookup, answer: Answer, kept: int) -> CacheBreak | None:
    name, usage, rules = _moved_param(request), answer.usage, request.dialect.rules
    if name is None or usage is None:
        return None
    kept = _scaled(kept, lookup, usage.input_tokens)
    lost = kept - usage.cache_read_tokens
    section: Section = "messages" if name in rules.message_params else rules.section_order[0]
    return None if lost <= tolerance(rules, kept) else _record(request, "params-changed", section, lost, name)


def _by_marks(request: Request, lookup: Lookup, answer: Answer) -> CacheBreak | None:
    sent, usage, rules = request.base.sent, answer.usage, request.dialect.rules
    if usage is None or sent is None or not unmarked(request):
        return None
    shared = overlap(sent.snapshot, request.snapshot, request.session.counter.count)
    shared = _scaled(shared, lookup, usage.input_tokens)
    lost = shared - usage.cache_read_tokens
    if shared < rules.min_tokens or lost <= tolerance(rules, shared):
        return None
    return _record(request, "breakpoint-missing", "messages", lost)


def _too_short(
    request: Request, target: Session, lookup: Lookup, answer: Answer, found: CacheBreak | None
) -> CacheBreak | None:
    """A provider that bills writes, and has never written anything of this session, takes its prompt for too short."""
    usage = answer.usage
    if found is None or found.cause != "evicted-or-routed" or usage is None or answer.diagnosis is not None:
        return found
    writes = request.dialect.rules.write_multiplier > 1 and lookup.write_tokens > 0
    if not writes or usage.input_tokens >= _LARGEST_MINIMUM or usage.cache_write_tokens:
        return found
    known = (entry.usage for entry in target.ledger if entry.usage is not None)
    if any(each.cache_read_tokens or each.cache_write_tokens for each in known):
        return found
    return replace(found, cause="below-minimum", fix=FIXES["below-minimum"])


def _record(request: Request, cause: Cause, section: Section, lost: int, path: str = "") -> CacheBreak:
    price = request.session.family.price(request.context.model)
    paid = extra_cost(lost, price)
    return CacheBreak(cause, section, lost, 1.0, paid, path=path, fix=FIXES[cause])


def _scaled(tokens: int, lookup: Lookup, reported: int) -> int:
    """Counted tokens as the provider counts them."""
    counted = lookup.read_tokens + lookup.write_tokens + lookup.fresh_tokens
    return round(tokens * reported / counted) if counted else tokens


def _last_request(session: Session) -> LedgerEntry | None:
    ledger = session.ledger
    indices = range(len(ledger) - 1, -1, -1)
    return next((ledger[index] for index in indices if ledger[index].kind == "request"), None)


def _last_epoch(session: Session) -> int | None:
    last = _last_request(session)
    return None if last is None else last.epoch
