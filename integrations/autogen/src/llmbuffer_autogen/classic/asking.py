"""One reply of an agent's, from the request that AutoGen made to the response that it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llmbuffer import Usage
from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.seam import Call, Seam

from .marking import with_breakpoints
from .prompts import Prompt, Wire, bare
from .seams import Seams
from .taps import Asked, Passing, accepted, passing, sdk_of

__all__ = ["UNKNOWN", "Asking"]

CLOSING = "next speaker"
UNKNOWN = "unknown"  # a model whose configuration does not name it
ROUNDS = 3  # times that calls of hidden tools are refused within one reply, before they are taken out of it
# Clients that keep the conversation at the provider, or that change messages in a way of their own.
_UNTOUCHED = ("OpenAIResponsesClient", "OpenAIResponsesV2Client")


class Asking:
    """Who asks, and in which conversation: an agent's next reply, a summary, or the choice of the next speaker.

    ``closing`` is the text of the last message, where that belongs to this request only.
    """

    def __init__(
        self, seams: Seams, *, conversation: str | None, member: str, closing: str | None = None
    ) -> None:
        self.seams, self.conversation, self.member, self.closing = seams, conversation, member, closing

    def ask(self, asked: Asked, params: dict[str, Any]) -> Any:
        """The client's response; calls of tools that may not be used are answered here and asked about again."""
        for number in range(ROUNDS + 1):
            call, response = self._asked(asked, params)
            refused = _refused(call, response)
            if not refused or number == ROUNDS:
                break
            params = {**params, "messages": [*(params.get("messages") or ()), *_answers(response, refused)]}
        return _without(response, refused) if refused else response

    def _asked(self, asked: Asked, params: dict[str, Any]) -> tuple[Call, Any]:
        client = asked.client
        seam = self.seams.of(str(params.get("model") or UNKNOWN), asked.api_type)
        opening, touched = self.seams.opening_of(seam), type(client).__name__ not in _UNTOUCHED
        if self.seams.mode == "observe":
            params = bare(params)
        elif touched:
            params = opening.before(params)
        prompt, wire = Prompt(params, self.closing), _wire(client, seam)
        leads = wire.marks is not None and opening.leads(prompt.texts)
        call = seam.call(
            messages=prompt.messages,
            tools=prompt.tools,
            system=prompt.system,
            dynamic=None if prompt.closing is None else {CLOSING: prompt.closing["content"]},
            params=prompt.params,
            conversation=self.conversation,
            member=self.member,
            marked=int(leads),
        )
        notes = Passing()
        sent = params
        if call.applies and touched:
            sent = prompt.applied(call.plan, wire, opens=leads)
            if wire.marks == "texts":
                notes.change = _breakpoints(call)
        with self.seams.passing(self.member):
            response = passing(notes, asked.create, sent)
        call.observe(message=self._said(response), usage=_usage(seam, notes, response))
        return call, response

    def _said(self, response: Any) -> Mapping[str, Any] | None:
        """The reply as AutoGen will hand it over with the next request."""
        message = _message(response)
        if message is None:
            return None
        calls = _calls(message)
        if calls:
            return {"tool_calls": calls, "content": getattr(message, "content", None), "role": "assistant"}
        content = getattr(message, "content", None)
        if not isinstance(content, str) or not content:
            return None
        return {"content": content, "role": "assistant", "name": self.member}

    def __repr__(self) -> str:
        return f"Asking(member={self.member!r})"


def _wire(client: Any, seam: Seam) -> Wire:
    """What the client can carry."""
    found, rules = sdk_of(client), seam.session.dialect.rules
    if found is None or type(client).__name__ in _UNTOUCHED:
        return Wire()
    if found[1] == "anthropic":
        return Wire(parts=True, marks="texts")
    return Wire(rules.has_marks, "parts" if rules.has_marks else None, accepted(found[0]))


def _breakpoints(call: Call) -> Callable[[dict[str, Any]], dict[str, Any]]:
    tools = next((mark.long for mark in call.plan.marks if mark.section == "tools"), None)
    return lambda body: with_breakpoints(body, tools)


# Usage


def _usage(seam: Seam, notes: Passing, response: Any) -> Usage:
    """What the server reported, in all calls that the client made for this response."""
    dialect = seam.session.dialect
    found = [dialect.read_usage({"usage": usage}) for usage in notes.usages]
    if not notes.calls:  # a client that is not known: what it reports in OpenAI's shape
        dump = getattr(getattr(response, "usage", None), "model_dump", None)
        found = [] if dump is None else [OpenAIChat().read_usage({"usage": dump()})]
    return sum((each for each in found if each is not None), Usage())


# Replies and the tools they call


def _message(response: Any) -> Any:
    choices = getattr(response, "choices", None)
    return getattr(choices[0], "message", None) if choices else None


def _calls(message: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": call.id,
            "function": {"arguments": call.function.arguments, "name": call.function.name},
            "type": "function",
        }
        for call in getattr(message, "tool_calls", None) or ()
        if getattr(call, "function", None) is not None
    ]


def _refused(call: Call, response: Any) -> dict[str, str]:
    """What to answer to each call of a tool that may not be used now, by the ids of the calls."""
    if not call.applies:
        return {}
    found = {each["id"]: call.refusal(each["function"]["name"]) for each in _calls(_message(response))}
    return {key: text for key, text in found.items() if text is not None}


def _answers(response: Any, refused: Mapping[str, str]) -> Iterable[dict[str, Any]]:
    """The reply and an error result for each of its calls: none is executed, so the model may call the others again."""
    message = _message(response)
    calls = _calls(message)
    yield {"tool_calls": calls, "content": message.content, "role": "assistant"}
    for call in calls:
        text = refused.get(call["id"], "Error: not executed, because of the other call. Call it again.")
        yield {"tool_call_id": call["id"], "role": "tool", "content": text}


def _without(response: Any, refused: Mapping[str, str]) -> Any:
    """The response without the calls that are refused; with the refusal as its text, where nothing else is left."""
    message = _message(response)
    message.tool_calls = [call for call in message.tool_calls if call.id not in refused] or None
    if message.tool_calls is None and not message.content:
        message.content = "\n".join(refused.values())
    return response
