"""The HTTP side of a simulated provider: routes, limits, streams, and each format's own errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from ..bodies import Wire
from ..errors import LLMBufferError
from ..usage import Usage
from .answers import Answer, Event
from .chat import chat_events, chat_whole
from .exchange import Exchange, Incoming
from .generate import generate_events, generate_whole
from .messages import message_events, message_whole
from .provider import Provider
from .reading import PATHS, decoded, guarded, read_body, unknown_path, workspace_of
from .refusals import RefusedError
from .replies import Asked, Call, Reply, ReplyScript, split_text
from .responses import response_events, response_whole

__all__ = ["PATHS", "build_app"]


class _Format(NamedTuple):
    whole: Callable[[Answer], dict[str, Any]]
    events: Callable[[Answer], Iterator[Event]]


_FORMATS: dict[Wire, _Format] = {
    "openai": _Format(chat_whole, chat_events),
    "openai-responses": _Format(response_whole, response_events),
    "anthropic": _Format(message_whole, message_events),
    "gemini": _Format(generate_whole, generate_events),
}


class Latency(NamedTuple):
    """Seconds before the first token and between two, where a reply does not say otherwise."""

    first: float = 0.0
    between: float = 0.0


def build_app(provider: Provider, script: ReplyScript, latency: Latency = Latency()) -> Starlette:  # noqa: B008 - frozen
    """The ASGI application that speaks all formats."""
    routes = _Routes(provider, script, latency)
    posts: dict[str, Callable[[Request], Any]] = {
        "/v1/chat/completions": routes.generating("openai"),
        "/v1/responses": routes.generating("openai-responses"),
        "/v1/messages": routes.generating("anthropic"),
        "/v1/messages/count_tokens": routes.count_anthropic,
    }
    gets = {
        "/health": routes.health,
        "/summary": routes.summary,
        "/metrics": routes.metrics,
    }
    ones: dict[str, Callable[[Request], Any]] = {}
    for version in ("/v1beta", "/v1"):  # google-genai asks for the one or the other
        posts[f"{version}/models/{{model}}:{{action}}"] = routes.gemini
        posts[f"{version}/cachedContents"] = routes.create_content
        gets[f"{version}/cachedContents"] = routes.list_contents
        ones[f"{version}/cachedContents/{{name}}"] = routes.one_content
    return Starlette(
        routes=[
            *(Route(path, guarded(endpoint), methods=["POST"]) for path, endpoint in posts.items()),
            *(Route(path, guarded(endpoint), methods=["GET"]) for path, endpoint in gets.items()),
            *(
                Route(path, guarded(endpoint), methods=["GET", "PATCH", "DELETE"])
                for path, endpoint in ones.items()
            ),
        ],
        exception_handlers={HTTPException: unknown_path, 404: unknown_path, 405: unknown_path},
    )


class _Routes:
    def __init__(self, provider: Provider, script: ReplyScript, latency: Latency) -> None:
        self._provider, self._script, self._latency = provider, script, latency

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def summary(self, request: Request) -> Response:
        return JSONResponse(self._provider.log.summary())

    async def metrics(self, request: Request) -> Response:
        return PlainTextResponse(self._provider.log.metrics(), media_type="text/plain; version=0.0.4")

    def generating(self, wire: Wire) -> Callable[[Request], Any]:
        async def generate(request: Request) -> Response:
            body = await self._asked(request, wire)
            given = body.get("model")
            model, stream = given if isinstance(given, str) else "", body.get("stream") is True
            path, workspace = request.url.path, workspace_of(request)
            return await self._answer(Incoming(wire, path, body, workspace, model, stream))

        return generate

    async def _asked(self, request: Request, wire: Wire, model: str = "") -> dict[str, Any]:
        """The body of a request for a reply; one that cannot be read is logged like any other that is refused."""
        try:
            return await self._body(request)
        except RefusedError as error:
            self._provider.refused(Incoming(wire, request.url.path, {}, workspace_of(request), model), error)
            raise

    async def _body(self, request: Request) -> dict[str, Any]:
        return decoded(await read_body(request, self._provider.limits.body_bytes))

    async def count_anthropic(self, request: Request) -> Response:
        body = await self._body(request)
        incoming = Incoming(
            "anthropic", request.url.path, body, workspace_of(request), str(body.get("model"))
        )
        return JSONResponse({"input_tokens": self._provider.count(incoming)})

    async def gemini(self, request: Request) -> Response:
        action, model, path = request.path_params["action"], request.path_params["model"], request.url.path
        body = await self._asked(request, "gemini", model)
        stream = action == "streamGenerateContent"
        incoming = Incoming("gemini", path, body, workspace_of(request), model, stream)
        if action in ("generateContent", "streamGenerateContent"):
            if stream and request.query_params.get("alt") != "sse":
                raise RefusedError("only streams of server-sent events are simulated: ask for ?alt=sse")
            return await self._answer(incoming)
        if action == "countTokens":
            return JSONResponse({"totalTokens": self._provider.count(incoming)})
        raise RefusedError(f"the method {action!r} is not simulated: {'; '.join(PATHS)}", status=404)

    async def create_content(self, request: Request) -> Response:
        body = await self._body(request)
        model = str(body.get("model", "")).removeprefix("models/")
        incoming = Incoming("gemini", request.url.path, body, workspace_of(request), model)
        return JSONResponse(self._provider.create_content(incoming).shown())

    async def list_contents(self, request: Request) -> Response:
        found = self._provider.contents.all(workspace_of(request), self._provider.clock())
        return JSONResponse({"cachedContents": [each.shown() for each in found]})

    async def one_content(self, request: Request) -> Response:
        contents, at = self._provider.contents, self._provider.clock()
        name, workspace = f"cachedContents/{request.path_params['name']}", workspace_of(request)
        if request.method == "DELETE":
            contents.delete(workspace, name, at)
            return JSONResponse({})
        if request.method == "PATCH":
            return JSONResponse(contents.update(workspace, name, await self._body(request), at).shown())
        return JSONResponse(contents.get(workspace, name, at).shown())

    async def _answer(self, incoming: Incoming) -> Response:
        try:
            exchange = self._provider.begin(incoming)
        except RefusedError as error:
            self._provider.refused(incoming, error)
            raise
        reply = _with_ids(await self._reply(exchange), exchange)
        await _sleep(reply.delay, self._latency.first)
        if reply.status != 200:
            self._provider.end(exchange, reply, Usage())
            raise RefusedError(reply.message, status=reply.status, retry_after=reply.retry_after)
        answer, form = _answer_of(exchange, reply), _FORMATS[incoming.wire]
        headers = {"x-request-id": exchange.id, "request-id": exchange.id}
        if incoming.stream:
            events = self._stream(exchange, reply, answer, form.events(answer))
            return StreamingResponse(events, media_type="text/event-stream", headers=headers)
        self._provider.first_token(exchange)
        if reply.pause is not None:
            await reply.pause()
        between = self._latency.between if reply.token_delay is None else reply.token_delay
        await _sleep(None, between * max(0, len(answer.pieces) - 1))
        self._provider.end(exchange, reply, answer.usage)
        return JSONResponse(
            form.whole(answer), headers={"x-request-id": exchange.id, "request-id": exchange.id}
        )

    async def _reply(self, exchange: Exchange) -> Reply:
        """What to say; a request that is answered with an error, as a list of replies may say, writes nothing."""
        if exchange.silent:
            self._provider.send(exchange)
            return Reply(output_tokens=0)
        reply = self._script.listed()
        if reply is not None and reply.status != 200:
            return reply
        self._provider.send(exchange)
        if reply is not None:
            return reply
        incoming, lookup = exchange.incoming, exchange.lookup
        try:
            return await self._script.asked(
                Asked(
                    exchange.number,
                    incoming.wire,
                    incoming.model,
                    incoming.body,
                    lookup.usage(),
                    lookup.outcome,
                    incoming.stream,
                )
            )
        except Exception as error:  # noqa: BLE001 - the script is the user's; its error is told, not lost
            kind = "" if isinstance(error, LLMBufferError) else f"{type(error).__name__}: "
            return Reply(status=500, message=f"the reply script failed: {kind}{error}")

    async def _stream(
        self, exchange: Exchange, reply: Reply, answer: Answer, events: Iterator[Event]
    ) -> AsyncIterator[bytes]:
        between = self._latency.between if reply.token_delay is None else reply.token_delay
        tokens = 0
        ended = False
        try:
            self._provider.first_token(exchange)
            for kind, data in events:
                if reply.truncated and (kind == "end" or tokens > len(answer.pieces) // 2):
                    break
                if kind == "end" and not ended:
                    ended = True
                    self._provider.end(exchange, reply, answer.usage)
                yield data
                tokens += kind == "token"
                if kind == "token" and tokens == 1 and reply.pause is not None:
                    await reply.pause()
                if kind == "token" and between:
                    await asyncio.sleep(between)
        finally:
            if not ended:
                self._provider.broken_off(exchange, answer.usage)


async def _sleep(asked: float | None, default: float) -> None:
    seconds = default if asked is None else asked
    if seconds > 0:
        await asyncio.sleep(seconds)


def _with_ids(reply: Reply, exchange: Exchange) -> Reply:
    calls = tuple(
        call if call.id else Call(call.name, call.arguments, f"call_{exchange.number:08d}_{index}")
        for index, call in enumerate(reply.calls)
    )
    return msgspec.structs.replace(reply, calls=calls)


def _answer_of(exchange: Exchange, reply: Reply) -> Answer:
    return Answer(
        exchange.id,
        exchange.incoming.model,
        int(exchange.at),
        exchange.incoming.body,
        exchange.rules,
        tuple(split_text(reply.text or "")),
        reply.calls,
        exchange.lookup.usage(exchange.output_tokens(reply)),
        exchange.diagnostics,
        exchange.silent,
    )
