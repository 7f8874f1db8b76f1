"""The error tree: every error that llmbuffer raises on purpose.

    LLMBufferError
    ├── MessageError (ValueError)       a message, tool or parameter that cannot be taken in
    │   ├── EncodingError               lone surrogates, NaN, infinities, values that are not JSON
    │   ├── PairingError                a tool result without its call, or a call without its result
    │   └── LossyError                  a conversion that would drop or change content
    ├── FrozenError                     a change to what must not move within an epoch
    ├── DialectError                    a provider's response or client that the dialect cannot use
    │   ├── UnknownDialectError (LookupError)
    │   └── UnknownModelError (LookupError)
    ├── EngineError                     an engine of one's own that does not start or does not answer
    ├── LoopError                       a turn that cannot begin or does not end
    ├── PlacementError (ValueError)     dynamic content that cannot be placed as asked
    ├── PluginError                     a plugin that is broken, duplicated or unknown
    ├── TokenizerError (LookupError)    an encoding that is unknown or not to be had offline
    ├── PolicyError (ValueError)        an eviction policy that is unknown, or an argument that it cannot work with
    │   └── CapacityError               an entry that cannot fit
    ├── PriceError (ValueError)         a price that is missing or makes no sense
    ├── ReplayError (ValueError)        a recording that cannot be read
    └── StoreError                      a store that cannot be opened, read or written
        ├── ConflictError               another writer moved the session on
        ├── CorruptStoreError           stored bytes that are not what was written
        └── UnknownSessionError (LookupError)

A message says what was wrong (identifiers in ``repr`` form), what was found, and what to do.
"""

from __future__ import annotations

__all__ = [
    "CapacityError",
    "ConflictError",
    "CorruptStoreError",
    "DialectError",
    "EncodingError",
    "EngineError",
    "FrozenError",
    "LLMBufferError",
    "LoopError",
    "LossyError",
    "MessageError",
    "PairingError",
    "PlacementError",
    "PluginError",
    "PolicyError",
    "PriceError",
    "ReplayError",
    "StoreError",
    "TokenizerError",
    "UnknownDialectError",
    "UnknownModelError",
    "UnknownSessionError",
]


class LLMBufferError(Exception):
    """Base of every error that llmbuffer raises on purpose."""


class MessageError(LLMBufferError, ValueError):
    """A message, tool or parameter that cannot be taken in; nothing was changed."""


class EncodingError(MessageError):
    """A value that has no faithful JSON form: lone surrogates, NaN, infinities, foreign objects."""


class PairingError(MessageError):
    """A tool result without its call, or a call that was not answered."""


class LossyError(MessageError):
    """A conversion that would drop or change content."""


class FrozenError(LLMBufferError):
    """A change to what must not move within an epoch.

    Attributes: ``field`` is the name of what was to change, ``tokens`` what the change would bill again.
    """

    def __init__(self, message: str, *, field: str, tokens: int) -> None:
        super().__init__(message)
        self.field = field
        self.tokens = tokens


class DialectError(LLMBufferError):
    """A provider's response or client object that the dialect cannot use."""


class UnknownDialectError(DialectError, LookupError):
    """A dialect name that no plugin registered."""


class UnknownModelError(DialectError, LookupError):
    """A model without rules where rules are required."""


class EngineError(LLMBufferError):
    """An engine of one's own that is not installed, does not start, or does not answer."""


class LoopError(LLMBufferError):
    """A turn that cannot begin (no client, or one of the wrong kind) or that does not end (too many rounds).

    What was observed before stays in the session.
    """


class PlacementError(LLMBufferError, ValueError):
    """Dynamic content that cannot be placed as asked."""


class PluginError(LLMBufferError):
    """A plugin that is broken, registered twice or unknown; the message names its distribution."""


class TokenizerError(LLMBufferError, LookupError):
    """An encoding that is unknown, or that is not to be had without a network."""


class PolicyError(LLMBufferError, ValueError):
    """An eviction policy that is unknown, or an argument that it cannot work with."""


class CapacityError(PolicyError):
    """An entry that cannot fit: larger than the capacity, or than what the pinned entries leave of it."""


class PriceError(LLMBufferError, ValueError):
    """A price that is missing or makes no sense."""


class ReplayError(LLMBufferError, ValueError):
    """A recording that cannot be read; the message names file and line."""


class StoreError(LLMBufferError):
    """A store that cannot be opened, read or written; what was acknowledged before stays."""


class ConflictError(StoreError):
    """Another writer moved the session on since this one saw it; nothing was written.

    Attributes: ``ours`` is the tip that was to be written, ``theirs`` the one that was found (``None`` if the session was
    forgotten), both in hexadecimal digits.
    """

    def __init__(self, message: str, *, ours: str, theirs: str | None) -> None:
        super().__init__(message)
        self.ours = ours
        self.theirs = theirs


class CorruptStoreError(StoreError):
    """Stored bytes that are not what was written: a damaged file, or a value under another's key."""


class UnknownSessionError(StoreError, LookupError):
    """A session that the store does not hold."""
