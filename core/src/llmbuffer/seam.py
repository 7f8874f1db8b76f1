"""Where an adapter plugs into its framework: the sessions behind one wrapped model, and what was used, by agent."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from threading import RLock
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from .breaks import CacheBreak
from .context import StableContext
from .errors import LLMBufferError, MessageError
from .ledger import Ledger
from .observing import Observation
from .reconcile import Host, Plan, Policy, Router
from .session import Session
from .usage import Usage

if TYPE_CHECKING:
    from .placing import Dynamic
    from .rules import Dialect

__all__ = ["Account", "Call", "Counted", "Mode", "Seam"]

Mode = Literal["observe", "buffer", "team"]
_Key = tuple[str | None, str | None]


_BREAKS = 256  # alarms of one account that are kept; all are counted


class Account(msgspec.Struct, frozen=True):
    """What was used: ``requests`` observed, their ``usage``, ``cost`` in USD (``None`` without a price), and breaks.

    ``breaks`` are the latest 256 alarms, ``break_count`` counts all of them.

    >>> (Account(1, Usage(input_tokens=10)) + Account(1, Usage(input_tokens=5), 0.5)).usage.input_tokens
    15
    """

    requests: int = 0
    usage: Usage = Usage()
    cost: float | None = None
    breaks: tuple[CacheBreak, ...] = ()
    break_count: int = 0

    def __add__(self, other: Account) -> Account:
        costs = [each for each in (self.cost, other.cost) if each is not None]
        return Account(
            self.requests + other.requests,
            self.usage + other.usage,
            sum(costs) if costs else None,
            (self.breaks + other.breaks)[-_BREAKS:] if other.breaks else self.breaks,
            self.break_count + other.break_count,
        )


class Call:
    """One call of the model: the ``plan`` that the adapter applies, and the response that it hands back once.

    ``applies`` is false in observe mode: the host's own prompt goes out untouched.
    """

    def __init__(self, seam: Seam, plan: Plan, key: _Key) -> None:
        self._seam, self._key = seam, key
        self.plan = plan
        self.applies = seam.mode != "observe"

    def observe(
        self, response: Any = None, message: Any = None, *, usage: Usage | None = None
    ) -> Observation | None:
        """Take in a response, see ``Plan.observe``; to be called once.

        A response that cannot be read costs the host nothing: its ``usage`` counts where that is given apart, else the
        result is ``None``, and ``Seam.unread`` counts it. What ``on_observe`` raises comes through.
        """
        seen = self._seen(response, message, usage)
        if seen is None and usage is not None:
            seen = self._seen(None, None, usage)
        self._seam._enter(self._key, seen)
        return seen

    def _seen(self, response: Any, message: Any, usage: Usage | None) -> Observation | None:
        try:
            return self.plan.observe(response, message, usage=usage)
        except LLMBufferError:
            return None
        except (
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
        ):  # an object of another shape, read as if it were one
            return None

    def refusal(self, name: str) -> str | None:
        """What to answer to a call of a tool that may not be used now, in place of executing it; else ``None``."""
        return self.plan.refusal(name)

    def __repr__(self) -> str:
        return f"Call({self.plan!r}, applies={self.applies})"


class Counted:
    """What was used by the ``seams`` of an object: one, or one for each model that it was called with."""

    @property
    def seams(self) -> tuple[Seam, ...]:
        """The seams so far."""
        raise NotImplementedError

    def account(self, *, conversation: str | None = None, member: str | None = None) -> Account:
        """What was used in all, in a conversation, by a member, or by a member in a conversation."""
        found = (each.account(conversation=conversation, member=member) for each in self.seams)
        return sum(found, Account())

    @property
    def usage(self) -> Usage:
        """All that was reported."""
        return self.account().usage

    @property
    def breaks(self) -> tuple[CacheBreak, ...]:
        """The alarms; of many, the latest."""
        return self.account().breaks

    @property
    def ledger(self) -> Ledger:
        """Every request of the sessions that are kept, by time."""
        return Ledger.of([session for each in self.seams for session in each.sessions])

    def forget(self, conversation: str, member: str | None = None) -> bool:
        """Let go of a conversation, or of one member's part in it; what it used stays counted. Whether there was any."""
        found = [each.forget(conversation, member) for each in self.seams]  # in all of them
        return any(found)

    def reset(self) -> None:
        """Let go of all conversations, of what was learned, and of the accounts."""
        for each in self.seams:
            each.reset()


class Seam(Counted):
    """The sessions behind one wrapped model of a framework, one for each conversation (and member), and their accounts.

    ``session`` is what all of them fork from; without one, a new one for ``model`` and ``dialect`` (default: OpenAI's).
    ``mode``:

    * ``observe``: nothing is changed; usage, cost and breaks are told, and ``history``, ``learn`` and the like are without
      effect;
    * ``buffer``: the prompt is kept append-only, see ``Session.reconcile``;
    * ``team``: besides, the members of a conversation share one prefix where the forecast says that this is cheaper, or
      always with ``Policy(team="shared")``; ``declare`` tells of them beforehand.

    ``policy`` says what may be done with the prompts, ``limit`` is how many conversations are kept. ``on_observe`` is called
    with each observation. Thread-safe. Raises ``MessageError`` for an unknown mode.

    >>> seam = Seam(model="gpt-5.5")
    >>> call = seam.call(messages=[{"role": "user", "content": "Hello"}], conversation="c1", member="ann")
    >>> seen = call.observe(usage=Usage(input_tokens=20, output_tokens=2))
    >>> seam.account(member="ann").usage.input_tokens, seam.account().requests
    (20, 1)
    """

    def __init__(
        self,
        host: Host | None = None,
        *,
        session: Session | None = None,
        model: str = "",
        dialect: str | Dialect | None = None,
        mode: Mode = "buffer",
        policy: Policy | None = None,
        limit: int = 1024,
        on_observe: Callable[[Observation], object] | None = None,
    ) -> None:
        if mode not in ("observe", "buffer", "team"):
            raise MessageError(f"mode is {mode!r}: use 'observe', 'buffer' or 'team'")
        if session is None:
            session = Session(StableContext(model), "openai" if dialect is None else dialect)
        self.session, self.mode, self.policy = session, mode, _moded(policy or Policy(), mode)
        self._router = Router(session, limit=limit, convert=host, policy=self.policy)
        self._limit, self._on_observe = limit, on_observe
        self._accounts: OrderedDict[_Key, Account] = OrderedDict()  # of conversations that have a name
        self._rest: OrderedDict[_Key, Account] = OrderedDict()  # of all others, by member
        self._declared: dict[str, tuple[str | Sequence[str] | None, Sequence[Any] | None]] = {}
        self._unread = 0
        self._lock = RLock()

    def call(
        self,
        *,
        messages: Sequence[Any],
        tools: Sequence[Any] | None = None,
        system: str | Sequence[str] | None = None,
        dynamic: Dynamic | None = None,
        params: Mapping[str, Any] | None = None,
        conversation: str | None = None,
        member: str | None = None,
        marked: int = 0,
        **options: Any,
    ) -> Call:
        """A plan for the prompt that the framework is about to send; arguments as for ``Router.reconcile``.

        ``options`` are fields of the policy that are different for this call.
        """
        plan = self._router.reconcile(
            messages=messages,
            tools=tools,
            system=system,
            dynamic=dynamic,
            params=params,
            conversation=conversation,
            member=member,
            marked=marked,
            **options,
        )
        return Call(self, plan, (conversation, member))

    def declare(
        self,
        member: str,
        *,
        system: str | Sequence[str] | None = None,
        tools: Sequence[Any] | None = None,
    ) -> None:
        """Say beforehand that a member of a team will speak, see ``Router.declare``; forks of this seam know it as well.

        Without effect in other modes.
        """
        self._router.declare(member, system=system, tools=tools)
        with self._lock:
            self._declared[member] = system, tools

    # What was used

    @property
    def accounts(self) -> dict[tuple[str | None, str | None], Account]:
        """What was used by each ``(conversation, member)``.

        Beyond ``limit``, old ones are summed under ``(None, member)``, and old members of those under ``(None, None)``.
        """
        with self._lock:
            return {**self._rest, **self._accounts}

    @property
    def unread(self) -> int:
        """How many responses could not be read."""
        return self._unread

    def account(self, *, conversation: str | None = None, member: str | None = None) -> Account:
        """What was used in all, in a conversation, by a member, or by a member in a conversation."""
        found = (
            account
            for (where, who), account in self.accounts.items()
            if conversation in (None, where) and member in (None, who)
        )
        return sum(found, Account())

    @property
    def seams(self) -> tuple[Seam, ...]:
        """This one."""
        return (self,)

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The sessions that are kept, the one used longest ago first."""
        return self._router.sessions

    def _enter(self, key: _Key, seen: Observation | None) -> None:
        if seen is None:
            with self._lock:
                self._unread += 1
            return
        alarms = () if seen.cache_break is None else (seen.cache_break,)
        one = Account(1, seen.usage or Usage(), seen.cost, alarms, len(alarms))
        with self._lock:
            _add(self._rest if key[0] is None else self._accounts, key, one)
            if len(self._accounts) > self._limit:
                (_, member), old = self._accounts.popitem(last=False)
                _add(self._rest, (None, member), old)
            while len(self._rest) > self._limit + 1:
                oldest = next(each for each in self._rest if each[1] is not None)
                _add(self._rest, (None, None), self._rest.pop(oldest))
        if self._on_observe is not None:
            self._on_observe(seen)

    # What is kept

    def session_of(self, conversation: str, member: str | None = None) -> Session:
        """The session of a conversation (and member); a new one where there is none."""
        return self._router.session(conversation, member)

    def forget(self, conversation: str, member: str | None = None) -> bool:
        """Let go of a conversation, or of one member's part in it; what it used stays counted. Whether there was any."""
        return self._router.forget(conversation, member)

    def reset(self) -> None:
        """Let go of all conversations, of what was learned, and of the accounts."""
        with self._lock:
            self._router.reset()
            for kept in (self._accounts, self._rest, self._declared):
                kept.clear()
            self._unread = 0

    def fork(self, session: Session | None = None) -> Seam:
        """A seam with the same settings and declared members, and nothing in it, off ``session`` (default: a fork of this one's)."""
        fork = Seam(
            self._router.host,
            session=self.session.fork() if session is None else session,
            mode=self.mode,
            policy=self.policy,
            limit=self._limit,
            on_observe=self._on_observe,
        )
        with self._lock:
            declared = dict(self._declared)
        for member, (system, tools) in declared.items():
            fork.declare(member, system=system, tools=tools)
        return fork

    def __repr__(self) -> str:
        return (
            f"Seam(mode={self.mode!r}, conversations={len(self._router)}, requests={self.account().requests})"
        )


def _add(accounts: OrderedDict[_Key, Account], key: _Key, one: Account) -> None:
    accounts[key] = accounts.get(key, Account()) + one
    accounts.move_to_end(key)


def _moded(policy: Policy, mode: str) -> Policy:
    if mode == "observe":
        return msgspec.structs.replace(policy, observe=True, learn=False)
    if mode == "team" and policy.team == "separate":
        return msgspec.structs.replace(policy, team="auto")
    return policy
