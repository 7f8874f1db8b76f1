"""What one request used, in tokens; defined once, inclusively, so that providers can be compared.

``input_tokens`` counts every prompt token, also those that were read from or written to a cache. Providers
differ here: Anthropic reports them apart, OpenAI, Gemini and DeepSeek include them. Dialects convert.
"""

from __future__ import annotations

import msgspec

from .errors import MessageError

__all__ = ["Usage"]


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one request, or the sum over several.

    All fields are token counts and default to 0. ``cache_read_tokens`` and ``cache_write_tokens`` are included in
    ``input_tokens``; ``cache_write_long_tokens`` (entries kept for 1 h or 12 h) is included in ``cache_write_tokens``.

    Raises ``MessageError`` for what is no whole number from 0 on, and for parts that exceed their whole.

    >>> usage = Usage(input_tokens=1000, output_tokens=20, cache_read_tokens=800, cache_write_tokens=150)
    >>> usage.fresh_tokens, usage.hit_ratio
    (50, 0.8)
    >>> (usage + usage).input_tokens
    2000
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_long_tokens: int = 0

    def __post_init__(self) -> None:
        given, out, read = self.input_tokens, self.output_tokens, self.cache_read_tokens
        written, long = self.cache_write_tokens, self.cache_write_long_tokens
        plain = type(given) is type(out) is type(read) is type(written) is type(long) is int
        if plain and out >= 0 <= read and 0 <= long <= written and read + written <= given:
            return
        _check_counts(self)
        if long > written:
            raise MessageError(
                f"cache_write_long_tokens exceeds cache_write_tokens in {self!r}, which includes it"
            )
        if read + written > given:
            raise MessageError(f"reads and writes exceed input_tokens in {self!r}, which includes both")

    @property
    def fresh_tokens(self) -> int:
        """Prompt tokens that were neither read from nor written to a cache."""
        return self.input_tokens - self.cache_read_tokens - self.cache_write_tokens

    @property
    def hit_ratio(self) -> float:
        """``cache_read_tokens / input_tokens``, a fraction of 1; 0.0 where nothing was sent."""
        return self.cache_read_tokens / self.input_tokens if self.input_tokens else 0.0

    def figures(self) -> dict[str, float]:
        """The counts under the names that every command's JSON has; the hit ratio to six places.

        >>> list(Usage(input_tokens=10).figures())[-2:]
        ['output_tokens', 'hit_ratio']
        """
        return {
            "input_tokens": self.input_tokens,
            "cache_read_tokens": self.cache_read_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "fresh_tokens": self.fresh_tokens,
            "output_tokens": self.output_tokens,
            "hit_ratio": round(self.hit_ratio, 6),
        }

    def __add__(self, other: Usage) -> Usage:
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            cache_write_long_tokens=self.cache_write_long_tokens + other.cache_write_long_tokens,
        )


def _check_counts(usage: Usage) -> None:
    """Raise ``MessageError`` for the first field that is no count; what is no number is not shown, it may be a text."""
    for name in usage.__struct_fields__:
        count = getattr(usage, name)
        if isinstance(count, bool) or not isinstance(count, int):
            found = repr(count) if isinstance(count, float) else f"a {type(count).__name__}"
            raise MessageError(f"{name} is {found}: give a token count, an int from 0 on")
        if count < 0:
            raise MessageError(f"{name} is {count!r}: give a token count, which starts at 0")
