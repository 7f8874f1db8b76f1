"""What the arms send with: a client in the shape of OpenAI's, whose answers carry the scripted replies.

The model of the demo has random weights, so what it writes is noise: one token is asked for, and the reply of the script
takes its place in the answer. Prompt tokens, cached tokens and times are the engine's own.
"""

from __future__ import annotations

import http.client
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from ..bodies import read_prompt
from ..cache import CacheModel
from ..dialects.engine_rules import LLAMACPP
from ..errors import LLMBufferError
from ..messages import Message
from ..tokens import EstimateCounter

__all__ = ["Engine", "Exchange", "HttpEngine", "ScriptedClient", "SilentEngine", "SimulatedEngine"]


# The server refuses noise that looks like the begin of a tool call, so the model is made to write a letter.
_LETTER = b',"logit_bias":[["a",100]]}'


class Engine(Protocol):
    """What answers a request body (JSON bytes, in OpenAI's chat format) with a response."""

    def complete(self, body: bytes) -> dict[str, Any]:
        """The response in its dict form."""


class HttpEngine:
    """A server on this machine, by its root ``url``, over one connection that is kept until ``close``.

    ``timeout`` in seconds is for one answer.

    >>> HttpEngine("http://127.0.0.1:8080")
    HttpEngine('127.0.0.1:8080')
    """

    def __init__(self, url: str, *, timeout: float = 300.0) -> None:
        self._address = urlsplit(url).netloc
        self._connection = http.client.HTTPConnection(self._address, timeout=timeout)

    def complete(self, body: bytes) -> dict[str, Any]:
        """Send and wait. Raises ``LLMBufferError`` for an error of the server, or if it went away."""
        asked = body.removesuffix(b"}") + _LETTER
        try:
            self._connection.request(
                "POST", "/v1/chat/completions", asked, {"Content-Type": "application/json"}
            )
            answer = self._connection.getresponse()
            status, content = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise LLMBufferError(
                f"the engine at {self._address} went away ({type(error).__name__}: {error}): was its process ended, or "
                "is the memory of this machine full?"
            ) from None
        if status != 200:
            said = content[:300].decode("utf-8", "replace")
            raise LLMBufferError(f"the engine at {self._address} answered with status {status}: {said}")
        return dict(json.loads(content))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __repr__(self) -> str:
        return f"HttpEngine({self._address!r})"


class SimulatedEngine:
    """The model of one llama.cpp slot in place of a server: tokens are simulated, and there are no times.

    ``clock`` gives seconds; ``count`` counts tokens (default: an estimate).

    >>> body = b'{"model": "local", "messages": [{"role": "user", "content": "hi"}]}'
    >>> SimulatedEngine(lambda: 0.0).complete(body)["timings"]
    {'cache_n': 0, 'prompt_n': 5}
    """

    def __init__(self, clock: Callable[[], float], count: Callable[[str], int] | None = None) -> None:
        self._clock = clock
        self._count = count if count is not None else EstimateCounter().count
        self._cache = CacheModel(LLAMACPP, count=self._count)

    def complete(self, body: bytes) -> dict[str, Any]:
        """Look the prompt up, and keep it."""
        snapshot = read_prompt(json.loads(body), "openai", LLAMACPP, self._count)
        at = self._clock()
        lookup = self._cache.commit(snapshot, at, at)
        read, whole = lookup.read_tokens, snapshot.tokens
        return {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}}],
            "usage": {"prompt_tokens": whole, "completion_tokens": 1},
            "timings": {"cache_n": read, "prompt_n": whole - read},
        }


class SilentEngine:
    """Answers at once and knows nothing: for a run of which only the texts or the memory matter.

    >>> SilentEngine().complete(b"{}")["usage"]
    {'prompt_tokens': 0, 'completion_tokens': 1}
    """

    def complete(self, body: bytes) -> dict[str, Any]:
        """An answer without content."""
        return {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}}],
            "usage": {"prompt_tokens": 0, "completion_tokens": 1},
            "timings": {"cache_n": 0, "prompt_n": 0},
        }


class Exchange(msgspec.Struct, frozen=True):
    """One model call: prompt tokens read from the cache and computed, and milliseconds of prompt processing, if measured.

    >>> Exchange(900, 100).hit_ratio
    0.9
    """

    read_tokens: int
    computed_tokens: int
    prompt_ms: float | None = None
    output_tokens: int = 1

    @property
    def input_tokens(self) -> int:
        """All tokens of the prompt."""
        return self.read_tokens + self.computed_tokens

    @property
    def hit_ratio(self) -> float:
        """The part of the prompt that was read from the cache."""
        return self.read_tokens / self.input_tokens if self.input_tokens else 0.0


class ScriptedClient:
    """``chat.completions.create(**body)``, as OpenAI's client has it: sends to ``engine``, answers with the next reply.

    ``on_call`` is given the body that was sent (JSON bytes) and the ``Exchange``, after every call.

    >>> client = ScriptedClient(SilentEngine())
    >>> client.expect([Message("assistant", "Hello!")])
    >>> client.chat.completions.create(model="local", messages=[])["choices"][0]["message"]
    {'role': 'assistant', 'content': 'Hello!'}
    """

    def __init__(self, engine: Engine, on_call: Callable[[bytes, Exchange], object] | None = None) -> None:
        self._engine, self._on_call = engine, on_call
        self._replies: deque[Message] = deque()
        self.chat = SimpleNamespace(completions=SimpleNamespace(create=self._create))

    def expect(self, replies: Iterable[Message]) -> None:
        """What the model will have said in the next calls."""
        self._replies.extend(replies)

    def _create(self, *, extra_body: Mapping[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        if not self._replies:
            raise LLMBufferError("the script has no reply left: expect() one for every call")
        body = msgspec.json.encode({**fields, **(extra_body or {})})
        answer = self._engine.complete(body)
        timings = answer.get("timings", {})
        exchange = Exchange(timings.get("cache_n", 0), timings.get("prompt_n", 0), timings.get("prompt_ms"))
        if self._on_call is not None:
            self._on_call(body, exchange)
        # As fresh from the wire: nothing of it is shared with the script.
        reply = json.loads(msgspec.json.encode(self._replies.popleft().to_openai()))
        return {**answer, "choices": [{**answer["choices"][0], "message": reply}]}
