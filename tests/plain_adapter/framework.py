"""The framework: a loop over the real OpenAI SDK, with mappings as messages, tools, streams and an asynchronous way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import openai

Message = dict[str, Any]
System = str | Callable[[], str]


class Call(msgspec.Struct, kw_only=True):
    """One call of the model, as it is about to be sent; wrappers of a model may change it."""

    messages: list[Message]
    tools: list[dict[str, Any]]
    conversation: str
    member: str | None = None
    stream: bool = False
    params: dict[str, Any] = {}


class Said(msgspec.Struct):
    """What the model said, and what it took."""

    message: Message
    usage: Any = None


class Model:
    """A model behind the SDK; ``refusal`` is asked before a tool is run, so that wrappers can say no."""

    def __init__(self, url: str, name: str) -> None:
        self.name = name
        self._client = openai.OpenAI(base_url=url, api_key="any", max_retries=0)
        self._asynchronous = openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0)

    def complete(self, call: Call) -> Said:
        response = self._client.chat.completions.create(**self._arguments(call))
        return _joined(list(response)) if call.stream else _whole(response)

    async def acomplete(self, call: Call) -> Said:
        response = await self._asynchronous.chat.completions.create(**self._arguments(call))
        return _joined([chunk async for chunk in response]) if call.stream else _whole(response)

    def refusal(self, name: str, conversation: str) -> str | None:
        return None

    def close(self) -> None:
        self._client.close()

    async def aclose(self) -> None:
        await self._asynchronous.close()

    def _arguments(self, call: Call) -> dict[str, Any]:
        given = {"model": self.name, "messages": call.messages, **call.params}
        return (
            given | ({"tools": call.tools} if call.tools else {}) | ({"stream": True} if call.stream else {})
        )


def _whole(response: Any) -> Said:
    message = response.choices[0].message
    return Said(_message(message.content, message.tool_calls or ()), response.usage)


def _joined(chunks: Iterable[Any]) -> Said:
    text, usage = "", None
    calls: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            for part in choice.delta.tool_calls or ():
                at = calls.setdefault(part.index, {"id": part.id, "name": "", "arguments": ""})
                at["name"] += part.function.name or ""
                at["arguments"] += part.function.arguments or ""
    made = [
        {"id": at["id"], "type": "function", "function": {"name": at["name"], "arguments": at["arguments"]}}
        for at in calls.values()
    ]
    message: Message = {"role": "assistant", "content": text or None}
    return Said(message | ({"tool_calls": made} if made else {}), usage)


def _message(content: str | None, calls: Sequence[Any]) -> Message:
    made = [call.model_dump(include={"id", "type", "function"}) for call in calls]
    message: Message = {"role": "assistant", "content": content or None}
    return message | ({"tool_calls": made} if made else {})


class Loop:
    """An agent: it keeps a list of messages for each conversation and goes on until the model calls no tool."""

    def __init__(
        self,
        model: Any,
        *,
        system: System,
        tools: Mapping[str, Callable[..., str]],
        schemas: Mapping[str, dict[str, Any]],
        stream: bool = False,
        name: str | None = None,
    ) -> None:
        self.model, self.name = model, name
        self.offered = list(schemas)
        self.histories: dict[str, list[Message]] = {}
        self._system, self._tools, self._schemas, self._stream = system, tools, schemas, stream

    def call(self, conversation: str, **params: Any) -> Call:
        system = self._system if isinstance(self._system, str) else self._system()
        told = [{"role": "system", "content": system}, *self.histories.setdefault(conversation, [])]
        schemas = [self._schemas[name] for name in self.offered]
        return Call(
            messages=told,
            tools=schemas,
            conversation=conversation,
            member=self.name,
            stream=self._stream,
            params=params,
        )

    def say(self, text: str, conversation: str, **params: Any) -> str:
        history = self.histories.setdefault(conversation, [])
        before = len(history)
        history.append({"role": "user", "content": text})
        try:
            while True:
                said = self.model.complete(self.call(conversation, **params))
                if self._taken(said, conversation):
                    return str(said.message["content"])
        except BaseException:
            del history[before:]
            raise

    async def asay(self, text: str, conversation: str) -> str:
        history = self.histories.setdefault(conversation, [])
        before = len(history)
        history.append({"role": "user", "content": text})
        try:
            while True:
                said = await self.model.acomplete(self.call(conversation))
                if self._taken(said, conversation):
                    return str(said.message["content"])
        except BaseException:
            del history[before:]
            raise

    def speak(self, conversation: str) -> str:
        """Say something to what was said last, under the agent's own name."""
        said = self.model.complete(self.call(conversation))
        self.histories[conversation].append({**said.message, "name": self.name})
        return str(said.message["content"])

    def _taken(self, said: Said, conversation: str) -> bool:
        """Keep a reply and run its calls; whether it was the last of the turn."""
        history = self.histories[conversation]
        history.append(said.message)
        for call in said.message.get("tool_calls", ()):
            name, arguments = call["function"]["name"], call["function"]["arguments"]
            result = self.model.refusal(name, conversation)
            if result is None:
                result = self._tools[name](**json.loads(arguments))
            history.append({"role": "tool", "tool_call_id": call["id"], "content": result})
        return "tool_calls" not in said.message


class Table:
    """Agents that share one list of messages and speak one after the other, each with a system prompt of its own."""

    def __init__(self, members: Sequence[Loop]) -> None:
        self.members = members
        for member in members:
            member.histories = members[0].histories

    def discuss(self, text: str, conversation: str) -> list[tuple[str, str]]:
        history = self.members[0].histories.setdefault(conversation, [])
        history.append({"role": "user", "content": text})
        return [(str(member.name), member.speak(conversation)) for member in self.members]
