"""What could be done about a history, and what is done: hooks in a chain, each guarded, and one decision."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import msgspec
from msgspec.structs import replace

from ..errors import HookError
from ..messages import Message
from .base import Ask, Budget, Compaction, Hook, Moment, moment_of, name_of, original_id
from .documents import Document, consolidated
from .economics import Cut, spread
from .guard import Kept, Legal, check_history
from .pairs import bears_reasoning, turns, without_reasoning
from .running import hook_error, run_hook
from .summarize import Summarizer

__all__ = ["Candidate", "Past", "Round"]

_POINTS = 16  # cut points looked at for one result


class Past(msgspec.Struct, frozen=True):
    """A history that may be made smaller.

    ``tokens`` are those of each message, ``head`` those of tools and system text before it. ``bound``: the provider refuses
    reasoning behind anything that changed. ``goes_on``: the newest turn has not ended.
    """

    messages: tuple[Message, ...]
    tokens: tuple[int, ...]
    head: int = 0
    bound: bool = False
    goes_on: bool = False


class Candidate(msgspec.Struct, frozen=True):
    """One thing that could be done: ``start`` is the first message that changes.

    ``kept`` are the tokens before it, tools and system text among them, ``left`` those from there on to the end of the
    history. ``after`` are the messages afterwards, from ``start`` on; ``None`` where a summary has to be made first.
    ``last_resort``: a hook of the moment ``overflow`` has been at it.
    """

    actions: tuple[str, ...]
    start: int
    kept: int
    left: int
    after: tuple[Message, ...] | None
    making: int = 0
    last_resort: bool = False

    def messages(self, past: Past) -> tuple[Message, ...]:
        """The whole history afterwards."""
        assert self.after is not None, "a summary is made first"
        return (*past.messages[: self.start], *self.after[self.start :])

    def cut(self, behind: int) -> Cut:
        """The same in numbers, with ``behind`` tokens that come after the history."""
        return Cut(
            action="+".join(self.actions),
            kept=self.kept,
            left=self.left + behind,
            making=self.making,
            last_resort=self.last_resort,
        )


class Round:
    """The chain of hooks over one history, and what came of it; each hook is called once.

    ``failures`` are the ``HookError`` of hooks that broke a rule, ``kept`` the messages by the ids in markers.
    """

    documents: tuple[Document, ...]  # as they are told afterwards

    def __init__(
        self,
        past: Past,
        compaction: Compaction,
        *,
        target: int,
        count: Callable[[Message], int],
        pins: Sequence[Message] = (),
        legal: Legal,
        summarize: Ask | None = None,
        overflow: bool = False,
        documents: Sequence[Document] = (),
        dialect: object = None,
    ) -> None:
        self.past, self._compaction, self._target = past, compaction, target
        self._count, self._summarize, self.dialect = count, summarize, dialect
        self._known = {
            id(message): tokens for message, tokens in zip(past.messages, past.tokens, strict=True)
        }
        self._legal, self._overflow = legal, overflow
        self._checked = compaction.checked
        self._pins = tuple(pins)
        self._fixed: set[int] = {id(pin) for pin in pins}
        current = self._consolidated(documents)
        self._fixed |= {id(message) for document in self.documents for message in document.told}
        self._guard = Kept(current, pinned=self._pinned, legal=self._sendable)
        self._new: list[Message] = []  # alive as long as their tokens are known by id
        self.failures: list[HookError] = []
        self.kept: dict[str, tuple[Message, ...]] = {}
        self._summarizer: Summarizer | None = None
        self._before_summary = current
        self.candidates = () if self._stuck() else tuple(self._chained(current))

    def _consolidated(self, documents: Sequence[Document]) -> tuple[Message, ...]:
        """The messages with each document told once, by its newest text."""
        current, now = self.past.messages, []
        for document in documents:
            if any(id(message) in self._fixed for message in document.told):
                now.append(document)
                continue
            current, document = consolidated(current, document)  # noqa: PLW2901 - the one that takes its place
            now.append(document)
        self.documents = tuple(now)
        return current

    def _pinned(self, message: Message) -> bool:
        if id(message) in self._fixed:
            return True
        return bool(self._pins) and id(message) not in self._known and message in self._pins

    def _stuck(self) -> bool:
        """Reasoning of a turn under way has to stay, and cannot stay behind a change."""
        return self.past.bound and self.past.goes_on and any(map(bears_reasoning, self._guard.newest))

    # Tokens

    def tokens(self, message: Message) -> int:
        """Tokens of one message, counted once."""
        known = self._known.get(id(message))
        if known is None:
            known = self._known[id(message)] = self._count(message)
            self._new.append(message)
        return known

    def _budget(self, moment: Moment, before: int) -> Budget:
        return Budget(
            max(0, self._target - self.past.head),
            moment=moment,
            least=int(before * (1 - self._compaction.max_loss)) + 1,
            count=self.tokens,
            keep=self._keep,
            pinned=self._pinned,
            summarize=self._summarize,
        )

    def _keep(self, messages: Sequence[Message]) -> str:
        name = original_id(messages)
        self.kept.setdefault(name, tuple(messages))
        return name

    # The chain

    def _chained(self, current: tuple[Message, ...]) -> Iterator[Candidate]:
        actions: tuple[str, ...] = () if current is self.past.messages else ("consolidate",)
        if actions:
            yield from self._found(actions, current)
        moments: tuple[Moment, ...] = ("between", "overflow") if self._overflow else ("between",)
        last_resort = False
        for hook in self._compaction.at(*moments):
            if self._small_enough(current) and current is not self.past.messages:
                return
            name = name_of(hook)
            if isinstance(hook, Summarizer):
                for expected in self._expected(hook, actions, current):
                    yield replace(expected, last_resort=last_resort)
                continue
            after = self._tried(hook, current)
            if after is not None:
                actions, current = (*actions, name), after
                last_resort = last_resort or moment_of(hook) == "overflow"
                yield from self._found(actions, current, last_resort=last_resort)

    def _small_enough(self, messages: Sequence[Message]) -> bool:
        return self.past.head + sum(map(self.tokens, messages)) <= self._target

    def _expected(
        self, hook: Summarizer, actions: tuple[str, ...], current: tuple[Message, ...]
    ) -> Iterator[Candidate]:
        expected = hook.expected(current, self._budget("between", sum(map(self.tokens, current))))
        if expected is None or self._summarizer is not None:
            return
        self._summarizer, self._before_summary = hook, current
        start = min(expected.start, self._first_changed(current))
        kept = self.past.head + sum(self.past.tokens[:start])
        between = sum(map(self.tokens, current[start : expected.start]))
        yield Candidate(
            (*actions, name_of(hook)), start, kept, expected.left + between, None, max(expected.making, 0)
        )

    def _first_changed(self, after: Sequence[Message]) -> int:
        pairs = zip(self.past.messages, after, strict=False)
        return next(
            (i for i, (one, two) in enumerate(pairs) if one is not two),
            min(len(after), len(self.past.messages)),
        )

    def _tried(self, hook: Hook, current: tuple[Message, ...]) -> tuple[Message, ...] | None:
        """What a hook made of the messages; ``None`` if it changed nothing or broke a rule."""
        before = sum(map(self.tokens, current))
        try:
            after = self._called(hook, current, before)
            if len(after) == len(current) and all(
                one is two for one, two in zip(current, after, strict=True)
            ):
                return None
            self._check(hook, current, after, before)
        except HookError as error:
            self.failures.append(error)
            return None
        return after

    def _called(self, hook: Hook, current: tuple[Message, ...], before: int) -> tuple[Message, ...]:
        budget = self._budget(moment_of(hook), before)
        after = self._same_objects(current, run_hook(hook, current, budget, self._compaction.time_limit))
        if self._compaction.debug and id(hook) not in self._checked:
            again = run_hook(hook, current, budget, self._compaction.time_limit)
            if len(again) != len(after) or any(
                one is not two and one != two for one, two in zip(after, again, strict=True)
            ):
                raise hook_error(hook, "it gave other messages for the same input when it was asked again")
            self._checked.add(id(hook))
        return after

    def _same_objects(self, before: Sequence[Message], after: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages; for one that was made anew and equals the old one at its place, the old one."""
        known, end = self._known, len(before)
        return tuple(
            before[index] if id(each) not in known and index < end and each == before[index] else each
            for index, each in enumerate(after)
        )

    def _check(self, hook: Hook, current: Sequence[Message], after: Sequence[Message], before: int) -> None:
        wrong = check_history(
            self._guard,
            after,
            before_tokens=before,
            after_tokens=sum(map(self.tokens, after)),
            max_loss=self._compaction.max_loss,
        )
        if wrong is not None:
            raise hook_error(hook, wrong)

    def _sendable(self, messages: Sequence[Message]) -> None:
        old = {id(message) for message in self.past.messages}
        self._legal([message for message in messages if id(message) not in old])

    # What came of it

    def _found(
        self, actions: tuple[str, ...], after: tuple[Message, ...], *, last_resort: bool = False
    ) -> Iterator[Candidate]:
        past = self.past
        start = self._first_changed(after)
        after = self.settled(after, start)
        sizes = [self.tokens(message) for message in after]
        found = self._candidate(actions, start, after, sum(sizes[start:]))
        yield replace(found, last_resort=last_resort)
        if len(after) != len(past.messages):
            return
        changed = [i for i, (one, two) in enumerate(zip(past.messages, after, strict=True)) if one is not two]
        before, behind = (
            list(accumulate(past.tokens, initial=0)),
            list(accumulate(reversed(sizes), initial=0)),
        )
        points = [at for at in turns(past.messages) if changed[0] < at <= changed[-1]]
        for index in spread([before[at] for at in points], _POINTS) if points else ():
            at = changed[bisect_left(changed, points[index])]
            found = self._candidate(actions, at, after, behind[len(after) - at])
            yield replace(found, last_resort=last_resort)

    def settled(self, after: tuple[Message, ...], start: int) -> tuple[Message, ...]:
        """The messages without reasoning behind the first change, where the provider binds it to what is before."""
        if not self.past.bound:
            return after
        return (*after[:start], *map(without_reasoning, after[start:]))

    def _candidate(
        self, actions: tuple[str, ...], start: int, after: tuple[Message, ...], left: int
    ) -> Candidate:
        kept = self.past.head + sum(self.past.tokens[:start])
        return Candidate(actions, start, kept, left, after)

    def made(self, candidate: Candidate) -> Candidate | None:
        """The candidate with its messages: a summary is made here. ``None`` if its hook broke a rule.

        Raises ``PendingError`` for a summary that has to be awaited.
        """
        if candidate.after is not None:
            return candidate
        assert self._summarizer is not None, "only a summary is made later"
        after = self._tried(self._summarizer, self._before_summary)
        if after is None:
            return None
        start = self._first_changed(after)
        after = self.settled(after, start)
        left = sum(map(self.tokens, after[start:]))
        return self._candidate(candidate.actions, start, after, left)

    def originals(self, after: Sequence[Message]) -> dict[str, tuple[Message, ...]]:
        """What is not there any more, by id: each message that went, and what markers name."""
        there = {id(message) for message in after}
        named = {
            name: messages
            for name, messages in self.kept.items()
            if not any(id(each) in there for each in messages)
        }
        covered = {id(message) for messages in named.values() for message in messages}
        for message in self.past.messages:
            if id(message) not in there and id(message) not in covered:
                named[original_id(message)] = (message,)
        return named
