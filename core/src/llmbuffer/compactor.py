"""Deciding about a session's prompt, and making it smaller: what a session with a ``Compaction`` shares with its forks."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from .archive import Archive
from .asking import asker
from .chain import walk
from .compacted import Compacted, Preview
from .compaction.base import Compaction, CompactionWarning
from .compaction.choosing import Candidate, Past, Round
from .compaction.economics import Cut, Decision, Outlook, Terms, decide, worth_asking
from .compaction.pairs import without_reasoning
from .compaction.running import PendingError, under_way
from .entering import Entering, Entrance, check_sendable, no_user
from .errors import HookError, LLMBufferError
from .layout import render_dynamic
from .messages import Message
from .rebuilding import continued, rebuilt
from .snapshot import message_tokens
from .state import Sent, State

if TYPE_CHECKING:
    from .placing import Placed
    from .session import Session

__all__ = ["Compactor"]

_ROUNDS = 8  # histories whose chain of hooks is remembered
_PATIENCE = 16  # after a no, the prompt grows by this share before the hooks are asked anew


class _Look(NamedTuple):
    """A history that is looked at, what the next request would be, and what could be done."""

    outlook: Outlook
    behind: int
    round: Round
    states: dict[tuple[object, ...], State]  # what came of it, by candidate


class Compactor:
    """A ``Compaction`` at work; thread-safe. It holds no history, only what was worked out for some."""

    def __init__(self, compaction: Compaction) -> None:
        self.compaction = compaction
        self._rounds: OrderedDict[
            tuple[int, int, bool], tuple[State, Round, dict[tuple[object, ...], State]]
        ] = OrderedDict()
        self.entrance = Entrance(compaction)
        self._lock = Lock()

    def enters(
        self,
        session: Session,
        message: Message,
        state: State,
        *,
        awaits: bool = False,
        lost: HookError | None = None,
    ) -> tuple[Message, Archive]:
        """A message behind a state as the hooks of commit time leave it, and the archive then: see ``entering``."""
        if message.role == "user" and not message.tool_results and no_user(state):
            return message, state.archive
        entering = self.entrance.enters(session, message, awaits=awaits, lost=lost)
        self.reported(session, entering)
        return entering.message, state.archive.keeping(entering.kept)

    def reported(self, session: Session, entering: Entering) -> None:
        """Tell which hooks broke a rule; raises the first if they are strict."""
        for error in entering.errors:
            self._failed(session, error)

    def _failed(self, session: Session, error: HookError) -> None:
        """Enter a broken rule into the ledger, and raise or warn."""
        session._note("hook-refused", f"{error.hook}: {error.reason}")
        if self.compaction.strict:
            raise error
        warnings.warn(str(error), CompactionWarning, stacklevel=2)

    # Between turns

    def placed(
        self,
        session: Session,
        base: State,
        placed: Placed,
        again: Callable[[State], Placed],
        lost: HookError | None = None,
    ) -> Placed:
        """The next request, on a smaller history where that pays or has to be; ``again`` places it on another state.

        Nothing of the session changes. While nothing could pay, the work is that of a few comparisons. A summary that has to
        be awaited raises ``PendingError``, or counts as ``lost`` for that reason.
        """
        outlook, behind = self._outlook(session, base, placed)
        if not self._worth(base, outlook, within=placed.pending is None and base.turn is not None):
            return self._fitting(placed, outlook)
        look = self._look(session, base, outlook, behind)
        decision, made = self._decided(session, base, look, lost=lost)
        if made is None:
            later = outlook.prompt + max(decision.again, outlook.prompt // _PATIENCE)
            start = placed.start if placed.start is not None else base
            start = replace(start, archive=replace(start.archive, ask_at=later))
            return self._fitting(replace(placed, start=start), outlook)
        found = replace(again(made.state), compacted=made)
        return self._fitting(found, self._outlook(session, made.state, found)[0])

    def _fitting(self, placed: Placed, outlook: Outlook) -> Placed:
        return replace(placed, warnings=(*placed.warnings, "over-max-tokens")) if outlook.forced else placed

    def _worth(self, state: State, outlook: Outlook, *, within: bool) -> bool:
        """Whether to ask the hooks at all: between turns, if it could pay; within one, if it has to be."""
        if state.open_calls or state.tip.depth == 0 or under_way(self.compaction.hooks):
            return False
        if outlook.forced:
            return True
        if within or outlook.prompt <= outlook.target:
            return False
        if outlook.prompt < state.archive.ask_at and outlook.warm:
            return False
        return worth_asking(outlook, removable=state.tip.end)

    def _outlook(self, session: Session, state: State, placed: Placed | None) -> tuple[Outlook, int]:
        """The figures of the next request, and how many of its tokens come behind the history."""
        behind = 0 if placed is None else _behind(session, state, placed)
        config, rules, sent = self.compaction, session.dialect.rules, state.sent
        prompt = session._head_tokens + state.tip.end + behind
        price = session.family.price(session.context.model)
        known = 0 if sent is None else min(_stays(sent), state.tip.end) + session._head_tokens
        outlook = Outlook(
            prompt=prompt,
            new=max(0, prompt - known),
            protected=min(prompt, behind + _newest(state)),
            growth=max(0, state.tip.end + state.archive.removed) / max(1, state.requests),
            remaining=self._remaining(session, state),
            idle=None if sent is None else max(0.0, session.clock() - sent.at),
            ttl=rules.ttl,
            target=min(config.target + behind, config.max_tokens),
            max_tokens=config.max_tokens,
            reserve=config.reserve,
            terms=Terms.of(rules, None if price is None else price.rates(prompt)),
        )
        return outlook, behind

    def _remaining(self, session: Session, state: State) -> int:
        horizon = self.compaction.horizon
        return horizon if isinstance(horizon, int) else max(0, int(horizon.remaining(state.requests)))

    def _look(
        self, session: Session, state: State, outlook: Outlook, behind: int, *, overflow: bool = False
    ) -> _Look:
        """The chain of hooks over a history, worked out once for each budget; forks share it."""
        config = self.compaction
        target = config.target
        if outlook.forced and target + behind > outlook.limit:
            target = max(0, int(outlook.limit) - behind)
        overflow = overflow or outlook.forced
        key = (id(state.tip), target, overflow)
        with self._lock:
            known = self._rounds.get(key)
        if known is not None and _as_before(known[0], known[1], state, session):
            return _Look(outlook, behind, known[1], known[2])
        made = self._round(session, state, target, overflow=overflow)
        self._report(session, made)
        states: dict[tuple[object, ...], State] = {}
        with self._lock:
            self._rounds[key] = (state, made, states)
            while len(self._rounds) > _ROUNDS:
                self._rounds.popitem(last=False)
        return _Look(outlook, behind, made, states)

    def _report(self, session: Session, made: Round) -> None:
        while made.failures:
            self._failed(session, made.failures.pop())

    def _round(self, session: Session, state: State, target: int, *, overflow: bool) -> Round:
        nodes = list(walk(state.tip))
        nodes.reverse()
        past = Past(
            messages=tuple(node.message for node in nodes if isinstance(node.message, Message)),
            tokens=tuple(node.tokens for node in nodes),
            head=session._head_tokens,
            bound=session.dialect.rules.reasoning_bound,
            goes_on=state.turn is not None,
        )
        archive = state.archive
        return Round(
            past,
            self.compaction,
            target=target,
            count=lambda message: message_tokens(message, session.counter.count),
            pins=archive.pins,
            legal=partial(check_sendable, session.dialect),
            summarize=asker(session, state),
            overflow=overflow,
            documents=archive.documents,
            dialect=session.dialect,
        )

    # Decisions

    def _decided(
        self,
        session: Session,
        state: State,
        look: _Look,
        *,
        asked: bool = False,
        lost: HookError | None = None,
    ) -> tuple[Decision, Compacted | None]:
        """The decision, and what it made. A candidate whose hook breaks a rule is left out, and the rest is decided on anew."""
        candidates = list(look.round.candidates)
        while True:
            offered = self._smallest(candidates) if asked else candidates
            cuts = {candidate.cut(look.behind): candidate for candidate in reversed(offered)}
            if asked:  # what is left is done, whether the next request fits or not
                cuts = {replace(cut, last_resort=False): candidate for cut, candidate in cuts.items()}
            decision = decide(replace(look.outlook, cuts=tuple(cuts)))
            chosen = _chosen(decision, cuts)
            if chosen is None or not (decision.compact or asked):
                return decision, None
            ready = self._made(session, look, chosen, lost)
            after = None if ready is None else self._tried(session, state, look, ready)
            if ready is not None and after is not None:
                return decision, Compacted(after, self._preview(look, decision, ready), asked)
            candidates.remove(chosen)

    def _smallest(self, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """Those that reach the target, whatever they cost; the smallest one if none does."""
        fitting = [each for each in candidates if each.kept + each.left <= self.compaction.target]
        fitting = [each for each in fitting if not each.last_resort] or fitting
        return fitting or sorted(candidates, key=lambda each: each.kept + each.left)[:1]

    def _made(
        self, session: Session, look: _Look, chosen: Candidate, lost: HookError | None
    ) -> Candidate | None:
        try:
            ready = look.round.made(chosen)
        except PendingError as pending:
            if lost is None:
                raise
            pending.drop()
            self._failed(session, lost)
            return None
        self._report(session, look.round)
        return ready

    def _tried(self, session: Session, state: State, look: _Look, chosen: Candidate) -> State | None:
        """The state with a candidate; ``None`` for one that the dialect cannot send as a whole."""
        try:
            return self._rebuilt(session, state, look, chosen)
        except LLMBufferError as error:
            name, reason = "+".join(chosen.actions), f"the dialect cannot send it: {error}"
            self._failed(session, HookError(f"{name!r} cannot be used: {reason}", hook=name, reason=reason))
            return None

    def _preview(self, look: _Look, decision: Decision, made: Candidate | None) -> Preview:
        after = decision.after if made is None else made.kept + made.left + look.behind
        return Preview(
            before=decision.before,
            after=after,
            actions=() if decision.cut is None else tuple(decision.cut.action.split("+")),
            cost_now=decision.cost_now_usd,
            saving=decision.saving_usd,
            break_even=decision.break_even,
            remaining=decision.remaining,
            compact=decision.compact,
            forced=decision.forced,
            why=decision.why,
        )

    def _rebuilt(self, session: Session, state: State, look: _Look, chosen: Candidate) -> State:
        """The state with the messages of a candidate; the history is made once, so that forks share it."""
        made, key = look.round, (session.dialect, chosen.actions, chosen.start, chosen.kept, chosen.left)
        messages = chosen.messages(made.past)
        core = look.states.get(key)
        if core is None:
            core = rebuilt(state, messages, chosen.start, session.dialect, made.tokens)
            core = look.states.setdefault(key, core)
        told = state.archive
        archive = replace(
            told.keeping(made.originals(messages)),
            compactions=told.compactions + 1,
            ask_at=0,
            removed=told.removed + state.tip.end - core.tip.end,
            pins=_pins(told.pins, messages),
            documents=made.documents if chosen.actions[0] == "consolidate" else told.documents,
        )
        return continued(core, state, archive)

    def preview(self, session: Session, state: State) -> Preview:
        """What a compaction of this state would come to, by what is expected of a summary where one would be made."""
        outlook, behind = self._outlook(session, state, None)
        if state.open_calls or state.tip.depth == 0 or under_way(self.compaction.hooks):
            tokens = outlook.prompt
            why = "the history is empty" if state.tip.depth == 0 else "one of the hooks is at work"
            why = "calls await their results" if state.open_calls else why
            return Preview(before=tokens, after=tokens, remaining=outlook.remaining, why=why)
        look = self._look(session, state, outlook, behind)
        cuts = tuple(candidate.cut(behind) for candidate in look.round.candidates)
        return self._preview(look, decide(replace(outlook, cuts=cuts)), None)

    def asked(self, session: Session, state: State) -> Compacted | None:
        """The best compaction of a state whether it pays or not; ``None`` if no hook makes it smaller, or one asks itself."""
        if under_way(self.compaction.hooks):
            return None
        outlook, behind = self._outlook(session, state, None)
        look = self._look(session, state, replace(outlook, target=0), behind, overflow=True)
        return self._decided(session, state, look, asked=True)[1]


def _as_before(old: State, made: Round, state: State, session: Session) -> bool:
    """Whether what was worked out holds still: no pin, document or context has changed since."""
    one, two = old.archive, state.archive
    same = old.tip is state.tip and one.pins == two.pins and one.documents == two.documents
    return same and made.past.head == session._head_tokens and made.dialect is session.dialect


def _pins(pins: Sequence[Message], messages: Sequence[Message]) -> tuple[Message, ...]:
    """The pinned messages as they are now: some may have lost their reasoning."""
    there = {id(message) for message in messages}
    bare = [message for message in messages if message.role == "assistant"] if pins else []
    found = []
    for pin in pins:
        without = without_reasoning(pin)
        found.append(pin if id(pin) in there else next((each for each in bare if each == without), pin))
    return tuple(found)


def _chosen(decision: Decision, cuts: Mapping[Cut, Candidate]) -> Candidate | None:
    cut = decision.cut
    if cut is None:
        return None
    same = (
        each
        for each, of in cuts.items()
        if (each.action, each.kept, each.left) == (cut.action, cut.kept, cut.left)
    )
    return next((cuts[each] for each in same), None)


def _behind(session: Session, state: State, placed: Placed) -> int:
    """Tokens of the next request behind the history: the user's message, and dynamic text."""
    dynamic = sum(session.counter.count(text) + 1 for text in render_dynamic(placed.segments))
    return placed.state.tip.end - state.tip.end + dynamic


def _stays(sent: Sent) -> int:
    """Tokens of the history that the last request had, up to dynamic text, which goes when its turn ends."""
    snapshot = sent.snapshot
    return snapshot.tip.end if snapshot.insert is None else snapshot.insert.after.end


def _newest(state: State) -> int:
    """Tokens of the newest turn; work is proportional to it."""
    tokens, asked = 0, False
    for node in walk(state.tip):
        message = node.message
        asks = isinstance(message, Message) and message.role != "assistant" and not message.tool_results
        if asked and not asks:
            break
        asked = asked or asks
        tokens += node.tokens
    return tokens
