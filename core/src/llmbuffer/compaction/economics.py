"""When and where to cut a prompt: ``decide(Outlook) -> Decision``, arithmetic over numbers only.

A cut makes every later request cheaper and the next one dearer, because what follows the cut has to be written to the
cache anew. With S the tokens from the first changed message to the end, S' the same after the cut, n the requests after
the next one, r and w what reading and writing cost and C what making S' costs, all in input tokens, a single cut pays if

    n > (w·S' - r·S + C) / (r·(S - S'))     while the cache is warm
    C < (w + n·r)·(S - S')                  while it is cold

That is necessary, not sufficient: waiting may be better still. So the best schedule of cuts over the remaining requests
with mean growth is sought (``schedule.py``), and the answer is yes only if it begins now. How often to ask: when
``worth_asking`` says so, or ``Decision.again`` tokens after the last no. The horizon comes from ``horizon.py``.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from .outlook import Cut, Outlook, Terms
from .schedule import Plan, plan

__all__ = ["Cut", "Decision", "Outlook", "Terms", "decide", "spread", "worth_asking"]

_CUTS = 32  # looked at in one decision
_PLANNED = 8  # of those, planned to the end of the horizon
_SHARE = (
    0.2  # of the prompt: a cut that takes out less and misses the target would soon be followed by the next
)


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether to cut now, and the figures of the best cut, for a preview also where the answer is no.

    ``cut`` is one of ``Outlook.cuts``, None where there was nothing to choose from. ``before`` and ``after`` are the tokens of the next prompt
    without and with it. ``cost_now`` is what the next request costs more because of it (less than 0 if it costs less),
    ``saving`` what it saves over the ``remaining`` requests, that included: both in input tokens, and in USD where the
    price is known. ``break_even`` is the number of requests after the next one from which on it has paid; infinite if
    never. ``forced``: the next request does not fit as it is; ``fits``: it does after ``cut``. ``again``: tokens that the
    prompt may grow before asking anew can change a no, provided that the cache stays as warm as it is.

    >>> decide(Outlook(prompt=500, target=1000)).why
    'the prompt of 500 tokens is not above the target of 1000'
    """

    compact: bool
    why: str
    before: int
    after: int
    remaining: int
    cut: Cut | None = None
    cost_now: float = 0.0
    saving: float = 0.0
    cost_now_usd: float | None = None
    saving_usd: float | None = None
    break_even: float = math.inf
    forced: bool = False
    fits: bool = True
    again: int = 0


def decide(outlook: Outlook) -> Decision:
    """Whether to cut before the next request, and where.

    Without cuts, or with a prompt that is not above ``target``, the answer is no, at once; so it is if all cuts miss the
    target and take out less than a fifth of the prompt, or if no single cut would pay and the window is not reached
    within the horizon. Otherwise the schedule is planned. If the next request
    does not fit, the answer is yes and the cheapest cut is taken that fits; if none does, the one that leaves least. The
    work has a fixed bound: at most 32 cuts are looked at, so thin out longer lists where they arise (``spread``).

    >>> cuts = (Cut(action="elide", kept=4_000, left=8_000), Cut(action="elide", kept=15_000, left=4_500))
    >>> outlook = Outlook(prompt=20_000, new=500, cuts=cuts, growth=600, remaining=30)
    >>> found = decide(outlook)
    >>> found.compact, found.cut.kept, found.after, round(found.break_even)
    (True, 4000, 12000, 10)
    >>> decide(replace(outlook, remaining=5)).compact
    False
    """
    if not outlook.forced and outlook.prompt <= outlook.target:
        why = f"the prompt of {outlook.prompt} tokens is not above the target of {outlook.target}"
        return _no(outlook, why, again=outlook.target - outlook.prompt)
    cuts = _eligible(outlook)
    if not cuts:
        return _no(outlook, _stuck(outlook))
    ranked = _ranked(outlook, cuts)
    if not outlook.forced and not _lasting(outlook, cuts):
        least = f"the target of {outlook.target} tokens or takes out {_SHARE:.0%} of the prompt"
        return _with_figures(outlook, ranked[0], compact=False, why=f"no cut reaches {least}")
    must = outlook.forced or _overflows(outlook) or _below(outlook, cuts)
    if not must and _gain(outlook, ranked[0]) <= 0:
        return _refused(outlook, ranked[0])
    filled = _filled(outlook, ranked)
    found = plan(outlook, filled, _later(outlook, filled))
    return _planned(outlook, found, ranked[found.index])


def worth_asking(outlook: Outlook, removable: int) -> bool:
    """Whether any cut could pay, by a bound that needs none: the test that keeps most requests free of further work.

    ``removable`` is at least as many tokens as any hook could take out of the prompt; ``outlook.cuts`` is not looked at.
    False means that ``decide`` would say no to whatever cuts there are, as long as the window is not reached.

    >>> worth_asking(Outlook(prompt=30_000, protected=9_000, remaining=4), removable=2_000)
    False
    """
    if outlook.forced or _overflows(outlook):
        return True
    if outlook.prompt <= outlook.target or removable <= 0:
        return False
    terms = outlook.terms
    rate = terms.read if outlook.prompt - outlook.new >= terms.minimum else 1.0
    if not outlook.warm:
        return True
    rewritten = max(0, min(outlook.protected, outlook.prompt) - outlook.new)
    return (outlook.remaining + 1) * rate * removable > (terms.write - terms.read) * rewritten


def spread(tokens: Sequence[int], limit: int = _CUTS) -> list[int]:
    """Which of many possible cut points to look at: at most ``limit`` indexes, evenly spread over the tokens.

    ``tokens[i]`` is the number of tokens before point ``i``, ascending. The first and the last are always among them.

    >>> spread([0, 10, 20, 900, 1000], limit=3), spread([5, 7], limit=3)
    ([0, 3, 4], [0, 1])
    """
    if len(tokens) <= limit:
        return list(range(len(tokens)))
    width = (tokens[-1] - tokens[0]) / (limit - 1)
    found = {bisect_left(tokens, tokens[0] + width * step) for step in range(limit)}
    return sorted(min(index, len(tokens) - 1) for index in found)


def _eligible(outlook: Outlook) -> list[Cut]:
    """The cuts that may be made; of those, only the ones that reach the target, if any does, or that last."""
    smaller = [cut for cut in outlook.cuts if cut.tokens < outlook.prompt]
    fitting = [cut for cut in smaller if cut.tokens <= outlook.limit]
    ordinary = [cut for cut in fitting if not cut.last_resort]
    reaching = [cut for cut in ordinary if cut.tokens <= outlook.target]
    if reaching or not outlook.forced:
        return reaching or _lasting(outlook, ordinary) or ordinary
    reaching = [cut for cut in fitting if cut.tokens <= outlook.target]
    return reaching or ordinary or fitting or sorted(smaller, key=lambda cut: cut.tokens)[:1]


def _lasting(outlook: Outlook, cuts: Sequence[Cut]) -> list[Cut]:
    """The cuts that are worth a break: without a target, whatever pays."""
    enough = max(outlook.target, (1 - _SHARE) * outlook.prompt) if outlook.target else math.inf
    return [cut for cut in cuts if cut.tokens <= enough]


def _ranked(outlook: Outlook, cuts: Sequence[Cut]) -> list[Cut]:
    """The most promising cuts, the one with the largest single-step gain first.

    What is best over a shorter horizon than all that remains is among them, since a later cut may end it early.
    """
    if len(cuts) > _CUTS:
        ordered = sorted(cuts, key=lambda cut: cut.kept)
        cuts = [ordered[index] for index in spread([cut.kept for cut in ordered])]
    horizons = (outlook.remaining, outlook.remaining // 2, outlook.remaining // 4, 0)
    orders = [sorted(cuts, key=lambda cut: -_gain(outlook, cut, count)) for count in horizons]
    chosen = dict.fromkeys(cut for row in zip(*orders, strict=True) for cut in row)
    return list(chosen)[:_PLANNED]


def _filled(outlook: Outlook, cuts: Sequence[Cut]) -> list[Cut]:
    """The same cuts, each with its residue."""
    shares = {action: _residue(outlook, action) for action in {cut.action for cut in cuts}}
    return [cut if cut.residue is not None else replace(cut, residue=shares[cut.action]) for cut in cuts]


def _later(outlook: Outlook, cuts: Sequence[Cut]) -> list[Cut]:
    """What can be done at later requests only: leave alone all there is today, or all that comes after today.

    The second matters where a cut leaves less than is cached: then it may pay to leave more.
    """
    settled = outlook.prompt - outlook.protected
    first = {cut.action: cut for cut in cuts if not (cut.folds or cut.making)}
    found = [replace(cut, kept=settled, left=outlook.protected) for cut in first.values()]
    if _below(outlook, cuts):
        found += [replace(cut, residue=1.0) for cut in cuts]
    return found


def _residue(outlook: Outlook, action: str) -> float:
    """What an action leaves of the messages that it goes over, by the cut that goes over most of them."""
    widest = min((cut for cut in outlook.cuts if cut.action == action), key=lambda cut: cut.kept)
    if widest.folds or widest.making:
        return 0.0
    touched = outlook.prompt - widest.kept - outlook.protected
    return min(1.0, max(0.0, (widest.left - outlook.protected) / touched)) if touched > 0 else 1.0


def _making(outlook: Outlook, cut: Cut) -> float:
    if not cut.making:
        return 0.0
    return outlook.terms.output * cut.making + outlook.prompt * (outlook.terms.read if outlook.warm else 1.0)


def _extra(outlook: Outlook, cut: Cut) -> float:
    """What the next request costs more with the cut, the making of it included."""
    held = outlook.held
    with_cut = outlook.terms.prompt(min(cut.kept, held), cut.tokens)
    return _making(outlook, cut) + with_cut - outlook.terms.prompt(held, outlook.prompt)


def _gain(outlook: Outlook, cut: Cut, remaining: int | None = None) -> float:
    """The single-step test: what a cut now, and no other ever, saves; in input tokens."""
    count = outlook.remaining if remaining is None else remaining
    later = outlook.terms.requests(outlook.prompt, outlook.growth, count)
    return later - outlook.terms.requests(cut.tokens, outlook.growth, count) - _extra(outlook, cut)


def _overflows(outlook: Outlook) -> bool:
    """Whether the window is reached within the horizon, so that some cut will have to be made."""
    return outlook.prompt + outlook.growth * outlook.remaining > outlook.limit


def _below(outlook: Outlook, cuts: Sequence[Cut]) -> bool:
    """Whether a cut leaves less than is cached: there one cut after the other may pay where a single one does not."""
    return any(cut.tokens < outlook.terms.minimum for cut in cuts)


def _break_even(outlook: Outlook, cut: Cut) -> float:
    extra = _extra(outlook, cut)
    if extra <= 0:
        return 0.0
    saved = outlook.terms.requests(outlook.prompt, 0, 1) - outlook.terms.requests(cut.tokens, 0, 1)
    return extra / saved if saved > 0 else math.inf


def _stuck(outlook: Outlook) -> str:
    if outlook.forced:
        return f"the prompt of {outlook.prompt} tokens does not fit {outlook.limit:.0f}, and no cut makes it smaller"
    return "no cut makes the prompt smaller"


def _no(outlook: Outlook, why: str, again: int = 0) -> Decision:
    return Decision(
        compact=False,
        why=why,
        before=outlook.prompt,
        after=outlook.prompt,
        remaining=outlook.remaining,
        forced=outlook.forced,
        fits=not outlook.forced,
        again=again,
    )


def _with_figures(outlook: Outlook, cut: Cut, *, compact: bool, why: str, again: int = 0) -> Decision:
    extra, gain, dollars = _extra(outlook, cut), _gain(outlook, cut), outlook.terms.dollars
    return Decision(
        compact=compact,
        why=why,
        before=outlook.prompt,
        after=cut.tokens,
        remaining=outlook.remaining,
        cut=cut,
        cost_now=extra,
        saving=gain,
        cost_now_usd=None if dollars is None else extra * dollars,
        saving_usd=None if dollars is None else gain * dollars,
        break_even=_break_even(outlook, cut),
        forced=outlook.forced,
        fits=cut.tokens <= outlook.limit,
        again=again,
    )


def _now(outlook: Outlook, cut: Cut) -> str:
    if _gain(outlook, cut) > 0:
        paid = _break_even(outlook, cut)
        return (
            f"the cut has paid after {paid:.1f} of {outlook.remaining} requests, and no later one is cheaper"
        )
    if _overflows(outlook):
        return f"the window is reached within {outlook.remaining} requests, and no later cut is cheaper"
    return "the cheapest schedule of several cuts begins now"


def _refused(outlook: Outlook, cut: Cut) -> Decision:
    paid = _break_even(outlook, cut)
    why = f"the best cut has paid after {paid:.1f} requests, and {outlook.remaining} are expected after the next one"
    return _with_figures(outlook, cut, compact=False, why=why, again=_until_it_may_pay(outlook, cut))


def _until_it_may_pay(outlook: Outlook, cut: Cut) -> int:
    """How far the prompt may grow before the single-step test can turn out otherwise.

    Each token that is added is at most one more that a cut takes out; so is what is protected now, which besides need not
    be written again then. Once the cache is warm, a summary is cheaper than now.
    """
    if cut.making and not outlook.warm:
        return 0
    terms = outlook.terms
    rate = max(terms.read, 1e-9) * (outlook.remaining + 1)
    released = outlook.protected * (rate + max(0.0, terms.write - terms.read))
    pays = (-_gain(outlook, cut) - released) / rate
    overflows = outlook.limit - outlook.prompt - outlook.growth * outlook.remaining
    return max(0, int(min(pays, overflows)))


def _planned(outlook: Outlook, found: Plan, cut: Cut) -> Decision:
    if outlook.forced:
        why = f"the prompt of {outlook.prompt} tokens does not fit {outlook.limit:.0f}; this is the cheapest cut"
        if cut.tokens > outlook.limit:
            why = f"no cut makes the prompt of {outlook.prompt} tokens fit {outlook.limit:.0f}; this leaves least"
        return _with_figures(outlook, cut, compact=True, why=why)
    if found.now < found.wait:
        return _with_figures(outlook, cut, compact=True, why=_now(outlook, cut))
    if found.after is None:
        return _with_figures(outlook, cut, compact=False, why="no schedule of cuts is cheaper than none")
    why = f"the best schedule begins in {found.after} requests"
    again = int(outlook.growth * (found.after - 2) / 4)
    return _with_figures(outlook, cut, compact=False, why=why, again=again)
