"""Asynchronous SDK clients for commands that talk to a provider, from the environment."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ..errors import DialectError, LLMBufferError

__all__ = ["open_client", "told", "unreachable"]


class _Access(NamedTuple):
    """The SDK of a dialect, where its key and its address are looked up, and the address if nobody names one."""

    extra: str
    keys: tuple[str, ...]
    url: str
    default: str | None = None


_OPENAI = _Access("openai", ("OPENAI_API_KEY",), "OPENAI_BASE_URL")
_ACCESS = {
    "openai": _OPENAI,
    "openai-responses": _OPENAI,
    "deepseek": _Access("openai", ("DEEPSEEK_API_KEY",), "DEEPSEEK_BASE_URL", "https://api.deepseek.com"),
    "llamacpp": _Access("openai", (), "OPENAI_BASE_URL"),
    "vllm": _Access("openai", (), "OPENAI_BASE_URL"),
    "anthropic": _Access("anthropic", ("ANTHROPIC_API_KEY",), "ANTHROPIC_BASE_URL"),
    "gemini": _Access("gemini", ("GEMINI_API_KEY", "GOOGLE_API_KEY"), "GOOGLE_GEMINI_BASE_URL"),
}
# The last one is aiohttp's, which google-genai uses where it is installed.
_LOST = frozenset(
    {"APIConnectionError", "APITimeoutError", "ConnectError", "ConnectTimeout", "ClientConnectionError"}
)
_KEYS_REFUSED = (401, 403)
_LONGEST = 300  # characters of an error's own words


@asynccontextmanager
async def open_client(dialect: str, base_url: str | None = None, *, retries: int = 2) -> AsyncIterator[Any]:
    """The client of a dialect's SDK, closed with the block. ``retries`` are the SDK's own.

    The address is ``base_url``, else the SDK's variable (``OPENAI_BASE_URL``, …), else the provider's; the key comes from the
    provider's variable, and servers of this machine need none. Raises ``DialectError`` for a dialect of another
    distribution, a package or a key that is missing.
    """
    access = _ACCESS.get(dialect)
    if access is None:
        raise DialectError(
            f"no client is known for the dialect {dialect!r}: known are {', '.join(_ACCESS)}; use fan_out in a program"
        )
    url = base_url or os.environ.get(access.url) or access.default
    if url is not None and not (urlsplit(url).scheme in ("http", "https") and urlsplit(url).netloc):
        raise DialectError(f"--base-url {url!r} is no address: give one such as http://127.0.0.1:8790/v1")
    key = _key(dialect, access, url)
    client = _made(access.extra, key, url, retries)
    used = client.aio if access.extra == "gemini" else client
    try:
        yield used
    finally:
        await (used.aclose() if access.extra == "gemini" else used.close())


def _key(dialect: str, access: _Access, url: str | None) -> str:
    found = next((os.environ[name] for name in access.keys if os.environ.get(name)), None)
    if found is not None:
        return found
    if not access.keys and url is None:
        raise DialectError(
            f"the dialect {dialect!r} is a server of your own: give its address with --base-url"
        )
    local = url is not None and urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
    if access.keys and not local:
        raise DialectError(f"no key for {dialect!r}: set {' or '.join(access.keys)}")
    return "none"


def _made(extra: str, key: str, url: str | None, retries: int) -> Any:
    try:
        if extra == "anthropic":
            import anthropic

            return anthropic.AsyncAnthropic(api_key=key, base_url=url, max_retries=retries)
        if extra == "openai":
            import openai

            return openai.AsyncOpenAI(api_key=key, base_url=url, max_retries=retries)
        from google import genai

        return genai.Client(api_key=key, http_options=None if url is None else {"base_url": url})
    except ModuleNotFoundError as error:
        raise DialectError(
            f"the SDK is not installed ({error.name}): pip install 'llmbuffer[{extra}]>=1'"
        ) from None


def unreachable(error: BaseException, base_url: str | None) -> str | None:
    """Why no request at all will succeed, in a line; ``None`` for an error that the next request may not have.

    >>> unreachable(ValueError("no"), None) is None
    True
    """
    where = base_url or "the provider"
    if not _LOST.isdisjoint(kind.__name__ for kind in type(error).__mro__):
        return f"cannot reach {where}: {_cause(error)}; is the address right, and does the server run?"
    status = getattr(error, "status_code", getattr(error, "code", None))
    if status in _KEYS_REFUSED:
        return f"{where} refuses the key (status {status}): set the key of this provider in the environment"
    if status == 404:
        return f"{where} knows no such address or model (status 404): an OpenAI address ends in /v1, Anthropic's does not"
    return None


def told(error: BaseException | None, base_url: str | None) -> str:
    """What a request failed with, in a line: what to do where it is plain, else the error's own words, cut.

    >>> told(ValueError("no   such thing"), None)
    'ValueError: no such thing'
    """
    why = None if error is None else unreachable(error, base_url)
    if why is not None:
        return why
    text = " ".join(str(error).split())
    kind = "" if isinstance(error, LLMBufferError) else f"{type(error).__name__}: "
    return f"{kind}{text if len(text) <= _LONGEST else text[: _LONGEST - 1] + '…'}"


def _cause(error: BaseException) -> str:
    """The innermost error, which tells what happened on the wire."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
