"""Requests on their way in: bodies within a limit, JSON, keys, and refusals on their way back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from ..bodies import Wire
from .refusals import RefusedError, envelope

__all__ = ["PATHS", "decoded", "guarded", "read_body", "unknown_path", "workspace_of"]

PATHS = (
    "POST /v1/chat/completions",
    "POST /v1/responses",
    "POST /v1/messages",
    "POST /v1/messages/count_tokens",
    "POST /v1beta/models/{model}:generateContent",
    "POST /v1beta/models/{model}:streamGenerateContent?alt=sse",
    "POST /v1beta/models/{model}:countTokens",
    "POST, GET /v1beta/cachedContents",
    "GET, PATCH, DELETE /v1beta/cachedContents/{name}",
    "GET /health",
    "GET /summary",
    "GET /metrics",
)
# What is asked for where the base URL of a client has its /v1 once too few or too often.
_SLIPS = {
    "/chat/completions": "the base URL of OpenAI's clients ends in /v1",
    "/responses": "the base URL of OpenAI's clients ends in /v1",
    "/v1/v1/messages": "the base URL of Anthropic's clients ends without /v1",
}
_DRAINED = (
    16  # times the limit: so much of a body that is too large is read and thrown away before the line is cut
)


def _wire_of(path: str) -> Wire | None:
    if path.startswith(("/v1beta", "/v1/models", "/v1/cachedContents")):
        return "gemini"
    return "anthropic" if path.startswith("/v1/messages") else None


async def unknown_path(request: Request, error: Exception) -> Response:
    """The answer to a path or a method that nobody serves."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    asked = f"{request.method} {request.url.path}"
    served = _SLIPS.get(request.url.path) or "; ".join(PATHS)
    said = RefusedError(f"{asked} is not served here: {served}", status=status)
    return refusal(said, _wire_of(request.url.path))


def refusal(error: RefusedError, wire: Wire | None) -> Response:
    """The response that tells an error."""
    headers = {} if error.retry_after is None else {"retry-after": f"{error.retry_after:g}"}
    if error.status == 413:
        headers["connection"] = "close"
    return JSONResponse(envelope(error, wire), error.status, headers)


def guarded(endpoint: Callable[[Request], Any]) -> Callable[[Request], Any]:
    """An endpoint whose refusals become responses."""

    async def answered(request: Request) -> Response:
        try:
            response: Response = await endpoint(request)
        except RefusedError as error:
            return refusal(error, _wire_of(request.url.path))
        except ClientDisconnect:
            return Response(status_code=400)
        return response

    return answered


async def read_body(request: Request, limit: int) -> bytes:
    """The body. Raises ``RefusedError`` for one that is too large, which is never held in memory as a whole."""
    announced = request.headers.get("content-length", "0")
    large = announced.isdigit() and int(announced) > limit
    kept: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        large = large or size > limit
        if large:
            kept.clear()
            if size > _DRAINED * limit:
                break
        else:
            kept.append(chunk)
    if large:
        raise RefusedError(
            f"the request body is larger than {limit:,} bytes: send less, or start the server with a higher limit",
            status=413,
        )
    return b"".join(kept)


def decoded(raw: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises ``RefusedError``."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(f"the request body is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise RefusedError(f"the request body is a JSON {type(body).__name__}: expected an object")
    return body


def workspace_of(request: Request) -> str:
    """A digest of the API key: keys themselves are not kept."""
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    named = [
        request.headers.get("x-api-key"),
        request.headers.get("x-goog-api-key"),
        request.query_params.get("key"),
    ]
    key = next((key for key in named if key), bearer)
    return hashlib.blake2b(key.encode(), digest_size=6).hexdigest()
