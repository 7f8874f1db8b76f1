"""The error tree, with every error that llmbuffer raises on purpose::

    LLMBufferError
    ├── MessageError (ValueError)       a message, tool or parameter that cannot be taken in
    │   ├── EncodingError               lone surrogates, NaN, infinities, values that are not JSON
    │   ├── PairingError                a tool result without its call, or a call without its result
    │   └── LossyError                  a conversion that would drop or change content
    ├── FrozenError                     a change to what must not move within an epoch
    ├── DialectError                    a provider's response or client that the dialect cannot use
    │   ├── UnknownDialectError (LookupError)
    │   └── UnknownModelError (LookupError)
    ├── BudgetError                     a request that a budget of tokens or money does not allow
    ├── EngineError                     an engine of one's own that does not start or does not answer
    ├── GraphError                      a task graph that cannot be run, or a run of one that failed
    │   ├── CycleError (ValueError)     tasks that wait for each other
    │   ├── GraphFileError (ValueError) a graph file that cannot be read
    │   ├── RunHeldError                a run that another process holds
    │   ├── TaskError                   a task that failed, or was skipped because another one did
    │   └── UnknownTaskError (LookupError)
    ├── LedgerError (ValueError)        a question that no ledger and no advice can answer
    ├── LimitError (ValueError)         a limit or a retry policy that makes no sense
    ├── LoopError                       a turn that cannot begin or does not end
    ├── PlacementError (ValueError)     dynamic content that cannot be placed as asked
    ├── PluginError                     a plugin that is broken, duplicated or unknown
    ├── TokenizerError (LookupError)    an encoding that is unknown or not to be had offline
    ├── PolicyError (ValueError)        an eviction policy that is unknown, or an argument that it cannot work with
    │   └── CapacityError               an entry that cannot fit
    ├── PriceError (ValueError)         a price that is missing or makes no sense
    ├── CompactionError (ValueError)    a compaction with limits or token counts that make no sense
    ├── HookError                       a compaction hook whose result cannot be used
    ├── OriginalError (LookupError)     an original that no compaction of this session replaced
    ├── ReplayError (ValueError)        a recording that cannot be read
    ├── ReportError (ValueError)        a run or a log that no report can be made of
    └── StoreError                      a store that cannot be opened, read or written
        ├── ConflictError               another writer moved the session on
        ├── CapabilityError             an act that the principal may not do
        ├── CorruptStoreError           stored bytes that are not what was written
        ├── SealError                   a key that is missing, wrong, weak or not wanted
        └── UnknownSessionError (LookupError)

A message says what was wrong (identifiers in ``repr`` form), what was found, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "BudgetError",
    "CapabilityError",
    "CapacityError",
    "CompactionError",
    "ConflictError",
    "CorruptStoreError",
    "CycleError",
    "DialectError",
    "EncodingError",
    "EngineError",
    "FrozenError",
    "GraphError",
    "GraphFileError",
    "HookError",
    "LLMBufferError",
    "LedgerError",
    "LimitError",
    "LoopError",
    "LossyError",
    "MessageError",
    "OriginalError",
    "PairingError",
    "PlacementError",
    "PluginError",
    "PolicyError",
    "PriceError",
    "ReplayError",
    "ReportError",
    "RunHeldError",
    "SealError",
    "StoreError",
    "TaskError",
    "TokenizerError",
    "UnknownDialectError",
    "UnknownModelError",
    "UnknownSessionError",
    "UnknownTaskError",
]


class LLMBufferError(Exception):
    """Base of every error that llmbuffer raises on purpose. It can be pickled, so that process pools hand it on."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, dict(self.__dict__))


def _rebuilt(kind: type[LLMBufferError], args: tuple[Any, ...], attributes: dict[str, Any]) -> LLMBufferError:
    """An error as it was; what its constructor wants besides the message stands in its attributes."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


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


class BudgetError(LLMBufferError):
    """A request that a budget of tokens or money does not allow; it was not sent, and what was paid before is kept.

    Attributes: ``run`` is what a task graph or a fan-out came to until then, if it was one that ran; else ``None``.
    """

    def __init__(self, message: str, *, run: Any = None) -> None:
        super().__init__(message)
        self.run = run


class GraphError(LLMBufferError):
    """A task graph that cannot be run, or a run of one that failed.

    Attributes: ``path`` are keys of tasks, each after the one before it, that lead to what is wrong; may be empty.
    """

    def __init__(self, message: str, *, path: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.path = tuple(path)


class CycleError(GraphError, ValueError):
    """Tasks that wait for each other; ``path`` begins and ends with the same key."""


class UnknownTaskError(GraphError, LookupError):
    """A task that comes after one that the graph does not have; ``path`` begins with the unknown key."""


class GraphFileError(GraphError, ValueError):
    """A graph file that cannot be read; the message names file and key."""


class RunHeldError(GraphError):
    """A run that another process holds, or took over; tasks of this process were stopped."""


class TaskError(GraphError):
    """A task that failed, or was skipped because another one did; ``__cause__`` is the error that it failed with.

    Attributes: ``key`` is the task's, ``run`` what the run came to, with the results of all tasks that were finished.
    """

    def __init__(self, message: str, *, key: str, run: Any = None, path: Sequence[str] = ()) -> None:
        super().__init__(message, path=path)
        self.key, self.run = key, run


class LedgerError(LLMBufferError, ValueError):
    """A question that no ledger, and no advice from what was observed, can answer."""


class LimitError(LLMBufferError, ValueError):
    """A limit or a retry policy that makes no sense, or that needs a package which is not installed."""


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


class CompactionError(LLMBufferError, ValueError):
    """A compaction with limits or token counts that make no sense."""


class HookError(LLMBufferError):
    """A compaction hook whose result cannot be used; the history is as it was.

    Attributes: ``hook`` names it, ``reason`` says what was wrong with it.
    """

    def __init__(self, message: str, *, hook: str, reason: str) -> None:
        super().__init__(message)
        self.hook = hook
        self.reason = reason


class OriginalError(LLMBufferError, LookupError):
    """An id under which no compaction of this session kept anything."""


class ReplayError(LLMBufferError, ValueError):
    """A recording that cannot be read; the message names file and line."""


class ReportError(LLMBufferError, ValueError):
    """A run or a log that no report can be made of; the message names what was found."""


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


class CapabilityError(StoreError):
    """An act that the principal may not do; nothing was read or written."""


class CorruptStoreError(StoreError):
    """Stored bytes that are not what was written: a damaged file, or a value under another's key."""


class SealError(StoreError):
    """A key that is missing, wrong or weak, or one given to a store that is not sealed; nothing was read or written."""


class UnknownSessionError(StoreError, LookupError):
    """A session that the store does not hold."""
