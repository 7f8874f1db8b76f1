"""What a provider says when it refuses a request, in its own envelope."""

from __future__ import annotations

from typing import Any

from ..bodies import Wire

__all__ = ["RefusedError", "envelope"]

# The names of errors by status: anthropic 2.12.0, types/shared/*_error.py; Google, google.rpc.Code.
_ANTHROPIC = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 405: "invalid_request_error", 413: "request_too_large", 429: "rate_limit_error",
    504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
_GEMINI = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 409: "ABORTED",
    413: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_OPENAI = {429: "rate_limit_exceeded", 401: "invalid_api_key", 404: "not_found"}


class RefusedError(Exception):
    """A request that is answered with an error. ``param`` names the field, ``retry_after`` is in seconds."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code
        self.retry_after = retry_after
        self.number: int | None = None  # of the request, once it has one


def envelope(error: RefusedError, wire: Wire | None) -> dict[str, Any]:
    """The body of an error response, as the SDK of this wire format parses it; OpenAI's where nobody knows.

    >>> envelope(RefusedError("no"), "gemini")
    {'error': {'code': 400, 'message': 'no', 'status': 'INVALID_ARGUMENT'}}
    """
    if wire == "anthropic":
        kind = _ANTHROPIC.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": error.message}}
    if wire == "gemini":
        status = _GEMINI.get(error.status, "INTERNAL" if error.status >= 500 else "INVALID_ARGUMENT")
        return {"error": {"code": error.status, "message": error.message, "status": status}}
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    if error.status == 429:
        kind = "requests"
    code = error.code or _OPENAI.get(error.status)
    return {"error": {"message": error.message, "type": kind, "param": error.param, "code": code}}
