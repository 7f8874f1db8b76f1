"""Google's Gemini API, ``generateContent``."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, closing
from copy import copy
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import DialectError, LossyError, MessageError
from ..frozen import FrozenDict, FrozenList, freeze
from ..messages import Message, Opaque, Tool
from ..rules import CacheRules, Draft, Event, Rendered
from ..usage import Usage
from . import gemini_rules
from .base import ModelRules, count_field, endpoint, mapping_field
from .gemini_parts import from_parts, text_part, to_parts
from .gemini_stream import ReplyAccumulator, response_fields

if TYPE_CHECKING:
    from .gemini_contents import CachedContents

__all__ = ["Gemini"]

_OPENING = "(The conversation begins with the assistant's message.)"
# Fields of generationConfig: google-genai 3.4.0, models.py, _GenerateContentConfig_to_mldev.
_GENERATION = frozenset(
    [
        "audioTimestamp",
        "audioTranscriptionConfig",
        "candidateCount",
        "enableEnhancedCivicAnswers",
        "frequencyPenalty",
        "imageConfig",
        "logprobs",
        "maxOutputTokens",
        "mediaResolution",
        "presencePenalty",
        "responseJsonSchema",
        "responseLogprobs",
        "responseMimeType",
        "responseModalities",
        "responseSchema",
        "seed",
        "speechConfig",
        "stopSequences",
        "temperature",
        "thinkingConfig",
        "topK",
        "topP",
    ]
)
_ELSEWHERE = frozenset(
    ["automaticFunctionCalling", "contents", "httpOptions", "model", "systemInstruction", "tools"]
)
_WHOLE = frozenset(
    {"STOP", "MAX_TOKENS"}
)  # reasons to finish that leave a reply, though perhaps an empty one


class Gemini(ModelRules):
    """The ``gemini`` dialect. ``rules`` given by hand replace the table by model; ``contents`` keeps explicit caches.

    ``request.body`` is the JSON body of the REST API, and ``model``, which the SDK puts into the address. Params of the
    context may have the names of the REST body (``toolConfig``, ``generationConfig``, ``safetySettings``) or those of the
    SDK's config (``tool_config``); fields of ``generationConfig`` may stand flat (``temperature``, ``maxOutputTokens`` or
    ``max_output_tokens``). What is inside their values is sent as it stands, so it has the names of the REST body.

    A tool of Google's own is ``{"type": "google_search", …}``; it goes as ``{"googleSearch": {…}}``. Functions
    go as one tool with ``parametersJsonSchema``, behind the others, in the order that the SDK sends.

    ``send`` and ``stream`` want a ``genai.Client``, ``asend`` and ``astream`` the same or its ``.aio``; a session's
    ``arespond`` and ``astream`` want ``client.aio``.

    >>> Gemini().bind("gemini-3.8-flash").rules.min_tokens
    4096
    """

    name = "gemini"
    default_model = "gemini-3.8-flash"
    system_in_messages = False
    content_key = "parts"

    rules_for = staticmethod(gemini_rules.rules_for)

    def __init__(self, rules: CacheRules | None = None, *, contents: CachedContents | None = None) -> None:
        self._contents = contents
        self._names: Mapping[str, str] = {}
        super().__init__(rules)

    @property
    def contents(self) -> CachedContents | None:
        """The explicit caches, if they are kept."""
        return self._contents

    def answering(self, calls: Mapping[str, str]) -> Gemini:
        """This dialect, with the names of the functions that the calls to be answered are of."""
        answering = copy(self)
        answering._names = calls
        return answering

    def render_message(self, message: Message, previous_role: str | None) -> Rendered:
        """Content parts; consecutive messages of one role share a wire content.

        A result that does not tell its function gets the name of the call that it answers: see ``answering``.
        """
        role = "model" if message.role == "assistant" else "user"
        parts = to_parts(message, self._names)
        if message.role in ("system", "developer"):
            if any(part.keys() != {"text"} for part in parts):
                raise LossyError(
                    "an instruction between messages is text only: give what else it holds to the user message"
                )
            parts = tuple(text_part(f"<system>\n{part['text']}\n</system>") for part in parts)
        kinds = tuple(next(iter(part), "") for part in parts)
        # The API wants a user's turn before a turn with calls.
        opens = previous_role is None and "functionCall" in kinds
        lead = FrozenDict(role="user", parts=FrozenList([text_part(_OPENING)])) if opens else None
        return Rendered(role, parts, joins=True, mark_at=-1, kinds=kinds, lead=lead)

    def wrap(self, role: str, blocks: tuple[FrozenDict, ...]) -> FrozenDict:
        """Parts of one role as one wire content."""
        return FrozenDict(role=role, parts=FrozenList(blocks))

    def render_tool(self, tool: Tool) -> FrozenDict:
        """A function with its raw JSON schema, or a tool of Google's own."""
        if tool.opaque is not None:
            return _own_tool(tool.opaque)
        described = {} if tool.description is None else {"description": tool.description}
        schema = (
            {} if tool.parameters is None else {"parametersJsonSchema": msgspec.json.decode(tool.parameters)}
        )
        extra = {} if tool.extra is None else msgspec.json.decode(tool.extra)
        declared = freeze({"name": tool.name, **described, **schema, **extra}, f"tool {tool.name!r}")
        return FrozenDict(functionDeclarations=FrozenList([declared]))

    def render_system(self, texts: Sequence[str]) -> FrozenList:
        """A text part for each segment."""
        return FrozenList(text_part(text) for text in texts if text)

    def dynamic_part(self, text: str) -> FrozenDict:
        """A text part."""
        return text_part(text)

    def mark_part(self, part: Mapping[str, Any], *, long: bool) -> FrozenDict:
        """The part as it is: there are no breakpoints."""
        return FrozenDict(part)

    def assemble(self, draft: Draft) -> FrozenDict:
        """The body; breakpoints and a routing key have no counterpart here.

        ``generationConfig`` is there even if it is empty, because the SDK sends it so. Raises ``MessageError`` without
        messages, which the API refuses, and for params that belong elsewhere.
        """
        if not draft.messages:
            raise MessageError(
                "a request to Gemini needs contents, and the session has no messages: say something"
            )
        generation, rest = _params(draft.params)
        body: dict[str, Any] = {
            "model": draft.model,
            "contents": draft.messages,
            "generationConfig": generation,
        }
        if draft.system:
            body["systemInstruction"] = FrozenDict(parts=draft.system)
        if draft.tools:
            body["tools"] = _merged(draft.tools)
        return FrozenDict(body, **rest)

    def kwargs(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for ``client.models.generate_content``.

        The body goes as ``http_options.extra_body``, which the SDK sends as it is. Its own config would write signatures
        and data in another base64 alphabet, put keys in another order and refuse fields that it does not know; ``contents``
        is given as well, because the SDK insists.
        """
        rest = {key: value for key, value in body.items() if key != "model"}
        rest["contents"] = list(body["contents"])  # the SDK warns of any other kind of list
        config = {"automatic_function_calling": {"disable": True}, "http_options": {"extra_body": rest}}
        return {"model": body["model"], "contents": body["contents"], "config": config}

    def read_usage(self, response: Any) -> Usage | None:
        """``promptTokenCount`` includes the cached ones. What Google's own tools brought in is input, thoughts are output."""
        usage = mapping_field(response_fields(response), "usageMetadata")
        if not usage:
            return None
        total = count_field(usage, "promptTokenCount") + count_field(usage, "toolUsePromptTokenCount")
        return Usage(
            input_tokens=total,
            output_tokens=count_field(usage, "candidatesTokenCount")
            + count_field(usage, "thoughtsTokenCount"),
            cache_read_tokens=min(total, count_field(usage, "cachedContentTokenCount")),
        )

    def read_message(self, response: Any) -> Message:
        """The parts of the first candidate. Raises ``DialectError`` where the prompt was blocked or the reply withheld."""
        data = response_fields(response)
        candidates = data.get("candidates")
        if not isinstance(candidates, list | tuple) or not candidates:
            reason = mapping_field(data, "promptFeedback").get("blockReason")
            if reason is not None:
                raise DialectError(
                    f"Gemini blocked the prompt (blockReason {reason!r}): change what was asked, or the safety settings"
                )
            raise DialectError(f"the response has no candidates: found the fields {list(data)}")
        candidate = candidates[0] if isinstance(candidates[0], Mapping) else {}
        parts = mapping_field(candidate, "content").get("parts") or ()
        finish = candidate.get("finishReason")
        if not parts and finish is not None and finish not in _WHOLE:
            raise DialectError(
                f"Gemini withheld the reply (finishReason {finish!r}): send the request again, or change what was asked"
            )
        return Message("assistant", from_parts(parts, str(data.get("responseId") or "")))

    def send(self, client: Any, kwargs: Mapping[str, Any]) -> Any:
        """``client.models.generate_content(**kwargs)``, with an explicit cache in place of the head where that pays."""
        call = endpoint(client, "models").generate_content
        lease = None if self._contents is None else self._contents.lease(client, kwargs, self.rules)
        if lease is None:
            return call(**kwargs)
        try:
            response = call(**lease.kwargs)
        except Exception as error:  # the SDK is not imported here: its errors are known by their code
            if not lease.refused(error):
                raise
            return call(**kwargs)
        lease.served()
        return response

    async def asend(self, client: Any, kwargs: Mapping[str, Any]) -> Any:
        """The same with ``client.aio``."""
        client = _aio(client)
        call = endpoint(client, "models").generate_content
        lease = None if self._contents is None else await self._contents.alease(client, kwargs, self.rules)
        if lease is None:
            return await call(**kwargs)
        try:
            response = await call(**lease.kwargs)
        except Exception as error:  # the SDK is not imported here: its errors are known by their code
            if not lease.refused(error):
                raise
            return await call(**kwargs)
        lease.served()
        return response

    def stream(self, client: Any, kwargs: Mapping[str, Any]) -> Iterator[Event]:
        """Text as it comes; the last event holds the whole response."""
        whole = ReplyAccumulator()
        with closing(self._chunks(client, kwargs)) as chunks:
            for chunk in chunks:
                yield from whole.add(response_fields(chunk))
        yield Event("done", value=whole.response())

    def _chunks(self, client: Any, kwargs: Mapping[str, Any]) -> Generator[Any, None, None]:
        call = endpoint(client, "models").generate_content_stream
        lease = None if self._contents is None else self._contents.lease(client, kwargs, self.rules)
        if lease is not None:
            begun = False
            try:
                for chunk in call(**lease.kwargs):
                    begun = True
                    lease.served()
                    yield chunk
            except Exception as error:  # the SDK is not imported here: its errors are known by their code
                if begun or not lease.refused(error):
                    raise
            else:
                return
        yield from call(**kwargs)

    async def astream(self, client: Any, kwargs: Mapping[str, Any]) -> AsyncIterator[Event]:
        """The same with ``client.aio``."""
        whole = ReplyAccumulator()
        async with aclosing(self._achunks(_aio(client), kwargs)) as chunks:
            async for chunk in chunks:
                for event in whole.add(response_fields(chunk)):
                    yield event
        yield Event("done", value=whole.response())

    async def _achunks(self, client: Any, kwargs: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        call = endpoint(client, "models").generate_content_stream
        lease = None if self._contents is None else await self._contents.alease(client, kwargs, self.rules)
        if lease is not None:
            begun = False
            try:
                async with _closed_after(await call(**lease.kwargs)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        lease.served()
                        yield chunk
            except Exception as error:  # the SDK is not imported here: its errors are known by their code
                if begun or not lease.refused(error):
                    raise
            else:
                return
        async with _closed_after(await call(**kwargs)) as chunks:
            async for chunk in chunks:
                yield chunk


@asynccontextmanager
async def _closed_after(chunks: Any) -> AsyncIterator[Any]:
    """The SDK's generator, closed at the end, so that a reader who stops leaves no open connection behind."""
    try:
        yield chunks
    finally:
        if hasattr(chunks, "aclose"):
            await chunks.aclose()


def _aio(client: Any) -> Any:
    return getattr(client, "aio", client)


def _camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)


def _own_tool(opaque: Opaque) -> FrozenDict:
    """``{"type": "google_search", …}`` as ``{"googleSearch": {…}}``; anything else as it came."""
    value = opaque.value
    if not isinstance(value, Mapping) or opaque.dialect not in ("gemini", "any"):
        raise LossyError(f"an opaque {opaque.dialect!r} tool has no place in Gemini's format")
    kind = value.get("type")
    if not isinstance(kind, str):
        return FrozenDict(value)
    settings = FrozenDict({key: item for key, item in value.items() if key != "type"})
    return FrozenDict({_camel(kind): settings})


def _merged(tools: FrozenList) -> FrozenList:
    """All functions in one tool, behind Google's own: where the SDK puts them, whatever the order they are given in."""
    functions = [tool for tool in tools if tool.keys() == {"functionDeclarations"}]
    declared = FrozenList(each for tool in functions for each in tool["functionDeclarations"])
    others = [tool for tool in tools if tool.keys() != {"functionDeclarations"}]
    return FrozenList([*others, FrozenDict(functionDeclarations=declared)] if declared else others)


def _params(params: Mapping[str, Any]) -> tuple[FrozenDict, dict[str, Any]]:
    """Params as ``generationConfig``, and the other fields of the body."""
    named = {_camel(key): value for key, value in params.items()}
    wrong = sorted(named.keys() & _ELSEWHERE)
    if wrong:
        raise MessageError(
            f"the params hold {wrong}, which are no settings: the model, system text and tools stand in the context, and "
            "settings of the SDK in its client"
        )
    given = named.pop("generationConfig", {})
    if not isinstance(given, Mapping):
        raise MessageError(f"generationConfig is a {type(given).__name__}: give a mapping")
    flat = {key: value for key, value in named.items() if key in _GENERATION}
    rest = {key: value for key, value in named.items() if key not in _GENERATION}
    return FrozenDict({**given, **flat}), rest
