"""Counting tokens with an engine's own tokenizer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from threading import Lock
from typing import Any

from ..errors import DialectError
from ..tokens import EstimateCounter, TokenCounter
from .llamacpp_slots import root_url

__all__ = ["ServerCounter"]

_log = logging.getLogger("llmbuffer.tokens")


class ServerCounter:
    """Asks ``/tokenize`` of a llama.cpp or vLLM server: exact for the model that it serves.

    ``client`` is a synchronous SDK client of your own for that server. The counts of the last ``remembered`` texts are kept.
    ``timeout`` in seconds is for one text. Once the server does not answer as it should, texts are counted by ``fallback``
    from then on, and the logger ``llmbuffer.tokens`` warns about it once: counting raises nothing. Threads may share one.

    >>> from types import SimpleNamespace
    >>> ServerCounter(SimpleNamespace(base_url="http://127.0.0.1:8080/v1/")).name
    'tokenize/http://127.0.0.1:8080'

    Raises ``DialectError`` for what is no client.
    """

    def __init__(
        self,
        client: Any,
        *,
        fallback: TokenCounter | None = None,
        remembered: int = 4_096,
        timeout: float = 5.0,
    ) -> None:
        self._root = root_url(client)
        self._client = client
        self._fallback: TokenCounter = fallback if fallback is not None else EstimateCounter()
        self._timeout = timeout
        self._failed = False
        self._lock = Lock()
        self._remembered = lru_cache(remembered)(self._ask)

    @property
    def name(self) -> str:
        """The server that counts, or the fallback that stands in for it."""
        return self._fallback.name if self._failed else f"tokenize/{self._root}"

    @property
    def estimated(self) -> bool:
        """False while the server counts."""
        return self._failed and self._fallback.estimated

    def count(self, text: str) -> int:
        """The tokens of ``text``, special tokens that stand in it included; 0 for the empty text."""
        if not text:
            return 0
        if not self._failed:
            try:
                return self._remembered(text)
            except Exception as error:  # noqa: BLE001 - counting must not stop a request
                self._give_up(error)
        return self._fallback.count(text)

    def _ask(self, text: str) -> int:
        # llama.cpp reads ``content``, vLLM ``prompt``; both leave out what a prompt begins with.
        body = {"content": text, "prompt": text, "add_special": False, "add_special_tokens": False}
        client = self._client.with_options(max_retries=0, timeout=self._timeout)
        answer = client.post(f"{self._root}/tokenize", cast_to=object, body=body)
        tokens = answer.get("tokens") if isinstance(answer, Mapping) else None
        if not isinstance(tokens, list):
            raise DialectError(f"the answer of a {type(self._client).__name__} holds no list of tokens")
        return len(tokens)

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            if self._failed:
                return
            self._failed = True
        _log.warning(
            "%s/tokenize does not count (%s: %s); from now on, counts are estimates by %s",
            self._root,
            type(error).__name__,
            error,
            self._fallback.name,
        )

    def __repr__(self) -> str:
        return f"ServerCounter({self.name!r})"
