"""vLLM's server, by its chat completions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from ..errors import DialectError
from ..frozen import FrozenDict, check_text
from ..rules import CacheRules, Draft
from ..usage import Usage
from .base import as_dict, count_field, mapping_field
from .engine_rules import VLLM
from .llamacpp import silent
from .openai_chat import OpenAIChat

__all__ = ["Vllm", "check_salt"]

_SALT_LENGTH = 128  # vllm 0.33.0: characters of a cache_salt, and those that it must not hold
_SALT_REFUSED = "@/\\\0"


class Vllm(OpenAIChat):
    """The ``vllm`` dialect. ``block_size``: tokens of a block (``--block-size``); ``capacity``: tokens in all blocks.

    All requests share their prefixes, also those that run side by side. ``cache_salt`` keeps this dialect's requests apart
    from all others: different salts share nothing, so none is sent unless you give one, here or as a parameter. Cached
    tokens are reported if the server runs with ``--enable-prompt-tokens-details``.

    >>> Vllm(block_size=128).rules.step
    128
    >>> from llmbuffer import Session, StableContext
    >>> Session(StableContext("local"), Vllm(cache_salt="tenant-1")).request("Hello").kwargs["extra_body"]
    {'cache_salt': 'tenant-1'}

    Raises ``DialectError`` for a salt that the server would refuse.
    """

    name = "vllm"
    default_model = "local"

    def __init__(
        self,
        rules: CacheRules | None = None,
        *,
        block_size: int = 16,
        cache_salt: str | None = None,
        capacity: int | None = None,
    ) -> None:
        if block_size < 1:
            raise DialectError(f"block_size is {block_size!r}: give the tokens of a block, such as 16")
        self._block_size, self._capacity = block_size, capacity
        self._salt = None if cache_salt is None else check_salt(cache_salt)
        super().__init__(rules)

    @staticmethod
    def rules_for(_model: str) -> CacheRules:
        """The rules of the engine, whatever the model."""
        return VLLM

    def chosen(self, rules: CacheRules) -> CacheRules:
        """The rules for a server with these blocks."""
        return replace(rules, step=self._block_size, capacity=self._capacity)

    def assemble(self, draft: Draft) -> FrozenDict:
        """The body, with the salt unless the params name one."""
        body = super().assemble(draft)
        if "cache_salt" in body:
            check_salt(body["cache_salt"])
        elif self._salt is not None:
            return FrozenDict(body, cache_salt=self._salt)
        return body

    def prewarm(self, body: Mapping[str, Any]) -> FrozenDict:
        """The body with ``max_tokens`` 1, the least that the server takes."""
        return silent(body, max_tokens=1)

    def read_usage(self, response: Any) -> Usage | None:
        """As OpenAI's, with ``created_cache_tokens`` as what was written."""
        usage = super().read_usage(response)
        details = mapping_field(mapping_field(as_dict(response), "usage"), "prompt_tokens_details")
        created = count_field(details, "created_cache_tokens")
        if usage is None or not created:
            return usage
        return replace(usage, cache_write_tokens=min(created, usage.input_tokens - usage.cache_read_tokens))


def check_salt(salt: object) -> str:
    r"""Return a salt that vLLM takes; raise ``DialectError`` for any other.

    >>> check_salt("a/b")
    Traceback (most recent call last):
    llmbuffer.errors.DialectError: cache_salt 'a/b' is refused by vLLM: give 1 to 128 characters without @, /, \ and NUL
    """
    if isinstance(salt, str) and 0 < len(salt) <= _SALT_LENGTH and not set(salt) & set(_SALT_REFUSED):
        return check_text(salt, "cache_salt")
    shown = repr(salt) if len(str(salt)) <= 2 * _SALT_LENGTH else f"of {len(str(salt)):,} characters"
    raise DialectError(
        f"cache_salt {shown} is refused by vLLM: give 1 to {_SALT_LENGTH} characters without @, /, \\ and NUL"
    )
