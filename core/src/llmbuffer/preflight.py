"""What is wrong with a request before it is paid for, as far as a session can see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .cache import Lookup
from .forecast import Detail
from .freezing import moved_params
from .rules import MARK_FIELDS
from .scanning import volatile_details
from .snapshot import overlap

if TYPE_CHECKING:
    from .request import Request

__all__ = ["preflight", "unmarked"]

_UNDER_WAY = 120.0  # seconds after which a request that nobody observed is taken for one that was never sent


def preflight(request: Request, lookup: Lookup) -> tuple[list[str], list[Detail]]:
    """Names of warnings, and details of warnings, beside those that the lookup gives.

    Work is bounded, but where breakpoints of the user's own stand in the request: then all of its body is read.
    """
    warnings: list[str] = []
    details = [*volatile_details(request.context), *_param_details(request)]
    if request.moved is not None:
        warnings.append(request.moved.cause)
    if _sibling_writes(request, lookup):
        warnings.append("siblings-cold")
    if request.dialect.rules.has_marks:
        warnings += _mark_warnings(request)
    return warnings, details


# Params


def _param_details(request: Request) -> Iterator[Detail]:
    """Params that the cache depends on, of this request alone or of the last one that this context sent."""
    rules, context, sent = request.dialect.rules, request.context, request.base.sent
    now = {**context.params, **request.params}
    found = moved_params(context.params, now, rules) if request.params else None
    if found is None and sent is not None and sent.context is context and sent.params:
        found = moved_params({**context.params, **sent.params}, now, rules)
    if found is not None:
        section = "messages" if found in rules.message_params else rules.section_order[0]
        yield Detail("params-changed", section, found)


# Siblings


def _sibling_writes(request: Request, lookup: Lookup) -> bool:
    """Whether another session of the family is sending what this request could read once it is there."""
    rules, own = request.dialect.rules, request.snapshot
    if rules.visible_after == "request" or lookup.outcome == "not-yet-visible":
        return False
    least = max(rules.min_tokens, 1, lookup.read_tokens + rules.step)
    if own.tokens < least:
        return False
    now, count = request.session.clock(), request.session.counter.count
    return any(
        other.session is not request.session
        and 0 <= now - other.at <= _UNDER_WAY
        and overlap(other.snapshot, own, count) > least
        for other in request.session.family.under_way()
    )


# Breakpoints


def unmarked(request: Request) -> bool:
    """Whether nothing of a prompt that is long enough is cached, because no breakpoint stands in it."""
    rules = request.dialect.rules
    if not rules.has_marks or request.snapshot.marks or _given(request):
        return False
    return request.snapshot.tokens >= rules.min_tokens


def _given(request: Request) -> int:
    """Breakpoints that the user or the host placed."""
    params = {**request.context.params, **request.params}
    return request.placed.state.given_marks + request.head.given_marks + ("cache_control" in params)


def _mark_warnings(request: Request) -> Iterator[str]:
    rules, given = request.dialect.rules, _given(request)
    if unmarked(request):
        yield "breakpoint-missing"
    if given > rules.slots or (given and _long_level_left_out(request)):
        yield "too-many-breakpoints"
    # Anthropic refuses such a request; the others say nothing of an order.
    if given and rules.match == "lookback" and _long_behind_short(request.body):
        yield "ttl-order"


def _long_level_left_out(request: Request) -> bool:
    """Whether a segment with ``ttl="long"`` got no breakpoint though it could have one."""
    rules = request.dialect.rules
    if rules.ttl_long is None:
        return False
    marked = [mark.node for mark in request.snapshot.marks if mark.in_head]
    return any(
        level.long
        and level.place.part >= 0
        and level.node.end >= rules.min_tokens
        and level.node not in marked
        for level in request.head.levels
    )


def _long_behind_short(body: Mapping[str, Any]) -> bool:
    short = False
    for mark in _marks(body):
        long = isinstance(mark, Mapping) and mark.get("ttl") not in (None, "5m")
        if long and short:
            return True
        short = short or not long
    return False


def _marks(body: Mapping[str, Any]) -> Iterator[Any]:
    """The breakpoints of a body in prompt order; the one for the last block, at the top of the body, comes last."""
    for section in ("tools", "system", "messages"):
        yield from _marks_in(body.get(section))
    yield from (body[name] for name in sorted(MARK_FIELDS) if name in body)


def _marks_in(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        inner = value.get("content")
        if inner is not None and not isinstance(inner, str):
            yield from _marks_in(inner)
        yield from (value[name] for name in sorted(MARK_FIELDS) if value.get(name) is not None)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for each in value:
            yield from _marks_in(each)
