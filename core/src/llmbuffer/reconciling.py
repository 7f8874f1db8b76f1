"""The part of ``Session`` that serves a host which owns the history: see ``reconcile``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from .placing import Dynamic
    from .reconcile import Host, Plan, Policy
    from .reconcile.reconciler import Reconciler
    from .session import Session

__all__ = ["Reconciling"]


class Reconciling:
    """Takes a host's whole prompt at every call and gives a plan; the machinery is loaded when first used."""

    __slots__ = ("_reconciler",)
    _reconciler: Reconciler

    def reconcile(
        self,
        *,
        tools: Sequence[Any] | None = None,
        system: str | Sequence[str] | None = None,
        messages: Sequence[Any],
        dynamic: Dynamic | None = None,
        params: Mapping[str, Any] | None = None,
        convert: Host | None = None,
        policy: Policy | None = None,
        key: str | None = None,
        marked: int = 0,
        **options: Any,
    ) -> Plan:
        """A plan for the prompt that a host is about to send: its own objects, and what to add where.

        ``tools`` and ``messages`` are the host's own objects, read through ``convert`` (default: mappings in OpenAI's
        format); ``system`` is the system text, or several of them; where it is ``None``, system messages that lead the
        messages are read as such. ``None`` for tools and no system text at all stand for the session's own.
        ``dynamic`` is content for this request only, ``params`` are those that the host sends. ``marked`` counts the
        breakpoints that the host sets by itself, beside those that its messages carry.

        ``policy`` says what may be done, and ``options`` are fields of it: ``history``, ``learn``, ``pinned``, …
        ``history="ours"`` needs a ``key`` that names the conversation, and raises ``MessageError`` without one.

        Never raises for what the host sends; what cannot be read is handed on and named in ``plan.unknown``. Work is
        proportional to what is new, but for one equality a message. Nothing is committed before ``plan.observe``.

        >>> from llmbuffer import Message, Session, StableContext, Usage
        >>> session, said = Session(StableContext("gpt-5.5")), [{"role": "user", "content": "Hello"}]
        >>> plan = session.reconcile(system="You are kind.", messages=said)
        >>> plan.relation, plan.messages[0] is said[0]
        ('new', True)
        >>> plan.observe(Usage(input_tokens=20), Message("assistant", "Hi!")).cache_break
        >>> said += [{"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "Who are you?"}]
        >>> session.reconcile(system="You are kind.", messages=said).relation
        'extension'
        """
        from .reconcile.policy import chosen
        from .reconcile.reconciler import reconciler_of

        session = cast("Session", self)
        return reconciler_of(session).plan(
            tools=tools,
            system=system,
            messages=messages,
            dynamic=dynamic,
            params=params,
            host=convert,
            policy=chosen(policy, options, key),
            marked=marked,
        )
