"""One call of the LLM: what CrewAI asked, what goes out for it, and what becomes of the reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmbuffer.errors import MessageError
from llmbuffer.reconcile import unmarked
from llmbuffer.reconcile.tooling import restriction
from llmbuffer.seam import Call

from .applying import laid_out, tools_mark
from .hosting import CrewHost, called, reply_message, tool_name
from .layouts import without
from .naming import agent_name
from .tapping import Wire, family
from .turns import Whose, own

if TYPE_CHECKING:
    from .llm import BufferedLLM

__all__ = ["Asked", "Sent"]

_Message = dict[str, Any]
_ROUNDS = 3  # replies that call nothing but foreign tools, before that is an error
_HOST = CrewHost()


class Sent:
    """What goes out: ``messages`` and ``tools`` for the LLM, and the ``wire`` that its request goes over."""

    def __init__(self, call: Call, messages: Any, tools: Any, wire: Wire) -> None:
        self.call, self.messages, self.tools, self.wire = call, messages, tools, wire


class Asked:
    """One call of CrewAI's."""

    def __init__(
        self,
        llm: BufferedLLM,
        messages: str | Sequence[_Message],
        tools: Sequence[Any] | None,
        *,
        task: Any,
        agent: Any,
        structured: bool,
    ) -> None:
        self.llm, self.given, self.tools = llm, messages, tools
        self.task, self.agent, self.structured = task, agent, structured
        self.bare = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        if agent is None and tools is None:
            self._go_on()
        self.own = frozenset(tool_name(tool) for tool in tools or ())
        self.member = agent_name(self.agent)
        self.whose = self._whose()
        self.whole = self._restored()
        self.key = llm.seam.keys.of(self.whole, self.task, self.agent)
        self.answered = 0  # how many of the messages were part of a prompt that was answered
        self._rounds = 0
        self.reply: Any = None
        self._sent_now: list[_Message] = []

    def _go_on(self) -> None:
        """Find the task of a call that CrewAI makes without naming it or its tools, to get a final answer out of it.

        The tools stay in the prompt, so that it is read from the cache, and none may be used.
        """
        known = self.llm.seam.recent.find(self.bare)
        if known is not None and self.llm.seam.mode != "observe":
            self.task, self.agent = known.task, known.agent
            self.tools = None if known.tools is None else ()

    def sent(self) -> Sent:
        """What goes out now: the prompt, and behind it what was refused in this call."""
        llm, seam = self.llm, self.llm.seam
        if seam.mode == "observe":
            call = seam.call(messages=self.bare, tools=self.tools, **self._names())
            return Sent(call, _unmarked(self.given), self.tools, Wire(seam.session.dialect))
        messages = seam.refusals.restored(self.key.place, self.whole)
        self._sent_now = messages
        system, rest = self._split(messages)
        offer, tools = llm.layout.offer(self.tools, structured=self.structured), self.tools
        arguments: dict[str, Any] = {}
        if offer is not None:
            tools = list(offer.items)
            arguments, told = restriction(offer, seam.session.dialect, {})
            system = system if told is None else [*system[:-1], f"{system[-1]}\n\n{told.content}"]
        last = len(llm.briefs) - 1
        marked = [last] if llm._marks_brief and last < len(system) - 1 else []
        call = seam.call(
            messages=rest, tools=tools, system=system or None, marked=len(marked), **self._names()
        )
        return self._applied(call, system, marked, arguments, tools)

    def _applied(
        self,
        call: Call,
        system: Sequence[str],
        marked: Sequence[int],
        arguments: Mapping[str, Any],
        tools: Any,
    ) -> Sent:
        plan, dialect = call.plan, self.llm.seam.session.dialect
        parts = family(self.llm.inner) != "other"
        texts = () if not system else plan.system if isinstance(plan.system, tuple) else ()
        messages = laid_out(plan, dialect, system=texts, marked=marked, parts=parts)
        wire = Wire(dialect, {**plan.arguments, **arguments}, mark_tools=tools_mark(plan))
        return Sent(call, messages, list(plan.tools) or None if tools is not None else None, wire)

    def _names(self) -> dict[str, Any]:
        return {"conversation": self.key.conversation, "member": self.key.member}

    def _restored(self) -> list[_Message]:
        """The messages, with the turns of a conversation as they were sent."""
        llm = self.llm
        if self.task is not None or self.agent is None or llm.seam.mode == "observe":
            return self.bare
        return llm.seam.turns.restored(self.whose, self.bare, whole=llm.whole_turns)

    def _whose(self) -> Whose:
        """Who may be handed the turns of this conversation again."""
        name = self.llm.seam.keys.name
        return Whose(name, str(getattr(self.agent, "id", "")) if name is None else self.member or "")

    def _split(self, messages: Sequence[_Message]) -> tuple[list[str], list[_Message]]:
        """The shared text, then CrewAI's own system text without it; and the rest behind what the session holds."""
        llm = self.llm
        if not llm.briefs:
            return [], [*llm.prologue, *messages]
        own, start = list[str](), 0
        while start < len(messages) and messages[start].get("role") == "system":
            content = messages[start].get("content")
            if not isinstance(content, str):
                break
            own.append(content)
            start += 1
        text = "\n\n".join(own)
        for brief in llm.briefs:
            text = without(text, brief)
        role = getattr(self.agent, "role", None)
        return llm.layout.system(llm.briefs, text.strip(), role), [*llm.prologue, *messages[start:]]

    # The reply

    def again(self, sent: Sent, reply: Any) -> bool:
        """Take in the reply. Whether the LLM has to be asked again, since all it called are tools that are not the agent's.

        Where not, ``reply`` is what CrewAI is given.
        """
        self.reply = reply
        message = reply_message(reply)
        sent.call.observe(message=message, usage=sent.wire.used)
        self.answered = len(self.bare)
        calls = called(reply)
        if not sent.call.applies or not calls or any(self._owns(sent, name) for _, name in calls):
            self._remember(reply, bool(calls))
            return False
        if message is None or self._rounds >= _ROUNDS:
            raise MessageError(
                f"the model called tools that are not this agent's {_ROUNDS + 1} times in a row "
                f"({sorted({name for _, name in calls})!r}): give the agent these tools, or name its own in the task"
            )
        self._rounds += 1
        refused = [_refused(identity, name) for identity, name in calls]
        self.llm.seam.refusals.add(self.key.place, self.whole, [message, *refused])
        return True

    def _owns(self, sent: Sent, name: str) -> bool:
        return name in self.own and sent.call.refusal(name) is None

    def _remember(self, reply: Any, calls: bool) -> None:
        if self.agent is None or calls or not isinstance(reply, str):
            return
        seam = self.llm.seam
        seam.keys.answered(self.key, reply)
        if self.task is None and seam.mode != "observe":
            self.reply = own(reply)
            seam.turns.remember(self.key.place, self.whose, self._sent_now, self.reply)


def _unmarked(given: str | Sequence[_Message]) -> Any:
    """The prompt without the marks of ``dynamic_text`` and ``persona``, which are for us; itself, where it has none."""
    if isinstance(given, str):
        return unmarked(given)
    shown = [_HOST.stripped(each, unmarked) for each in given]
    return given if shown == list(given) else shown


def _refused(identity: str, name: str) -> _Message:
    text = f"Error: the tool {name!r} cannot be used now. Go on without it."
    return {"role": "tool", "tool_call_id": identity, "name": name, "content": text}
