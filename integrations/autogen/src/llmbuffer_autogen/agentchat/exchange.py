"""One call of the wrapped client: the requests that it takes, and what came of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

from autogen_core import MessageHandlerContext
from autogen_core.models import CreateResult, RequestUsage

from llmbuffer.seam import Call
from llmbuffer.usage import Usage

from .asking import Asked, applied_messages, bare, chosen_tools, params_of, refused, routed, with_midway
from .convert import reply_of
from .marks import marked
from .warming import held
from .wire import Wire, create_args_of, sdk_of

if TYPE_CHECKING:
    from .client import BufferedChatCompletionClient

__all__ = ["Exchange", "asker"]

_REFUSALS = 3  # times that a model is asked again after it called a tool that may not be used


def asker() -> tuple[str | None, str | None]:
    """The team and the agent in whose place this runs, by the runtime's word; ``(None, None)`` outside of a runtime."""
    try:
        who = MessageHandlerContext.agent_id()
    except RuntimeError:
        return None, None
    return who.key, who.type.removesuffix(f"_{who.key}")


class Exchange:
    """What a caller asked for, and the requests made for it: one, and one more each time a reply was refused."""

    def __init__(self, client: BufferedChatCompletionClient, asked: Asked) -> None:
        self._client, self._asked = client, asked
        self._behind: list[Any] = []  # refused replies and their answers
        self._refusals = 0
        self._spent = RequestUsage(prompt_tokens=0, completion_tokens=0)
        self._call: Call | None = None
        self._place: tuple[str | None, str | None] = (None, None)
        self._wire = Wire()
        self.result: Any = None

    @asynccontextmanager
    async def request(self, cancellation_token: Any) -> AsyncIterator[dict[str, Any]]:
        """The arguments for the inner client; inside, the request is made (see ``sending``)."""
        client = self._client
        self._call = call = self._planned()
        reaches = sdk_of(client.model_client) is not None
        request = self._applied(call, reaches_body=reaches) if call.applies else self._as_given()
        request["extra_create_args"] = request.pop("extra")
        request["cancellation_token"] = cancellation_token
        lead = None if client.warming is None else await client.warming.enter(call.plan)
        self._wire = Wire(
            (lambda body: self._body(body, call, request["messages"])) if call.applies else None,
            stream_usage=client.stream_usage,
            on_begun=None if lead is None else lead.begun,
        )
        with held(lead):
            yield request

    def sending(self) -> AbstractContextManager[None]:
        """What the inner client sends meanwhile is this request; never held over a ``yield``."""
        return self._wire.open()

    def _planned(self) -> Call:
        client, asked = self._client, self._asked
        conversation, member = asker()
        conversation = conversation if client.conversation is None else client.conversation
        member = member if client.member is None else client.member
        messages, dynamic, options = self._told(conversation)
        call = client.seam.call(
            messages=messages,
            tools=list(asked.tools),
            dynamic=dynamic,
            params=params_of(asked, create_args_of(client.model_client)),
            conversation=conversation,
            member=member,
            marked=self._opening_marks(messages),
            **options,
        )
        self._place = conversation, member
        if client.seam.mode == "team" and conversation is not None:
            client.known.note(conversation, asked.messages, call.plan)
        return call

    def _opening_marks(self, messages: Sequence[Any]) -> int:
        """How many breakpoints the end of what all agents share takes, so that the plan has as many less."""
        client = self._client
        has_marks = client.seam.session.dialect.rules.has_marks and client.seam.mode != "observe"
        return int(has_marks and 0 < client.opening.leads(messages) < len(messages))

    def _told(self, conversation: str | None) -> tuple[Sequence[Any], dict[str, str] | None, dict[str, Any]]:
        """The messages to plan with, dynamic text beside them, and what of the policy is different for them."""
        client, asked = self._client, self._asked
        if client.seam.mode == "observe":
            return asked.messages, None, {}
        found = None if asked.tools or client.selector is None else client.selector.read(asked.messages)
        if found is None:
            return client.opening.before(asked.messages), None, {}
        found, common = client.known.whole(conversation, found), client.known.common(conversation)
        if common is not None:
            messages, dynamic = found.beside(common)
            return messages, dynamic, {}
        messages, dynamic = found.alone()
        return client.opening.before(messages), dynamic, {"team": "separate"}

    def _as_given(self) -> dict[str, Any]:
        """What was asked for; marks that only llmbuffer reads come off."""
        return {**self._asked._asdict(), "messages": bare(self._asked.messages, self._client.host)}

    def _applied(self, call: Call, *, reaches_body: bool) -> dict[str, Any]:
        plan, info = call.plan, self._client.model_info
        choice, note = chosen_tools(plan, self._asked, reaches_body=reaches_body)
        messages = applied_messages(
            plan,
            parts=bool(plan.marks) and reaches_body,
            system=bool(info.get("multiple_system_messages")),
            note=note,
        )
        return {
            "messages": [*messages, *self._behind],
            "tools": list(plan.tools),
            "tool_choice": choice,
            "json_output": self._asked.json_output,
            "extra": self._asked.extra,
        }

    def _body(self, body: dict[str, Any], call: Call, shown: list[Any]) -> dict[str, Any]:
        behind, merges = len(self._behind), not self._client.model_info.get("multiple_system_messages")
        sent = marked(
            routed(body, call.plan),
            call.plan,
            shown,
            behind=behind,
            merges_system=merges,
            opening=self._client.opening.leads(shown),
        )
        return with_midway(sent, call.plan, behind)

    async def next(self, stream: AsyncGenerator[Any, None]) -> Any:
        """The next piece of a stream; ``None`` at its end."""
        with self.sending():
            return await anext(stream, None)

    def ends(self, result: CreateResult) -> bool:
        """Take in a reply. Whether it is the answer; else the model is asked again with an error for each call."""
        call = self._call
        assert call is not None  # there was a request
        more = refused(call, result) if call.applies else []
        usage = self._wire.usage(call.plan.session.dialect.read_usage)
        if usage is None:
            usage = Usage(
                input_tokens=result.usage.prompt_tokens, output_tokens=result.usage.completion_tokens
            )
        conversation, member = self._place
        if self._client.seam.mode == "team" and conversation is not None:
            self._client.known.hear(conversation, member, result.content)
        if (
            self._wire.requests or not result.cached
        ):  # else a cache of replies has answered, and nobody was asked
            call.observe(message=None if more else reply_of(result), usage=usage)
        if more and self._refusals < _REFUSALS:
            self._refusals += 1
            self._behind += more
            self._spent = _sum(self._spent, result.usage)
            return False
        if more:
            result = result.model_copy(update={"content": result.thought or "", "finish_reason": "stop"})
        self.result = (
            result.model_copy(update={"usage": _sum(self._spent, result.usage)}) if self._refusals else result
        )
        return True


def _sum(one: RequestUsage, other: RequestUsage) -> RequestUsage:
    return RequestUsage(
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
    )
