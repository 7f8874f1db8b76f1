"""One task of a graph: what it does, what it comes after, and how its definition is told from another."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from types import CodeType
from typing import Any, NamedTuple, TypeAlias

import msgspec

from ..calls import Executor
from ..context import dynamic_segments
from ..errors import GraphError
from ..frozen import canonical_json, check_text, freeze
from ..limits import Retry
from ..messages import Message
from ..placing import Dynamic
from ..store.records import encode_message

__all__ = [
    "RESERVED",
    "Accepts",
    "After",
    "Task",
    "Work",
    "arguments_of",
    "checked_key",
    "fingerprint",
    "is_prompt",
    "parameters",
]

Work: TypeAlias = str | Message | Mapping[str, Any] | Sequence[Any] | Callable[..., Any]
After: TypeAlias = "str | Task | Callable[..., Any]"

# Parameters of a callable that are given something else than a result: the fork that it may converse in, or its id.
RESERVED = ("session", "session_id")


class Task(msgspec.Struct, frozen=True, eq=False):
    """One task; made by ``TaskGraph.task``. It can be named in ``after=`` of other tasks.

    ``work`` is a prompt (text, ``Message`` or parts), or a callable. ``after`` are pairs of an argument's name and the key
    of the task whose result it gets; ``continues`` is the key of the task whose conversation goes on, if any. ``timeout``
    is in seconds for each attempt, ``retry`` says how often another is made. ``prompts`` tells whether it asks the model, and
    ``upstream`` the keys of all tasks that it comes after, the continued one first.
    """

    key: str
    work: Any
    index: int
    after: tuple[tuple[str, str], ...] = ()
    continues: str | None = None
    tools: Executor | None = None
    retry: Retry = Retry(0)
    timeout: float | None = None
    params: Mapping[str, Any] | None = None
    dynamic: Dynamic | None = None
    max_rounds: int = 32
    version: str = ""
    prompts: bool = False
    upstream: tuple[str, ...] = ()

    def __repr__(self) -> str:
        kind = "prompt" if self.prompts else getattr(self.work, "__qualname__", type(self.work).__name__)
        return f"Task({self.key!r}, {kind}, after={list(self.upstream)})"


def is_prompt(work: object) -> bool:
    """Whether this is said to the model, rather than called."""
    return isinstance(work, str | Message | Mapping | Sequence)


def _signature(task: Task) -> inspect.Signature | None:
    """The signature of a callable task; ``None`` where Python cannot tell (some built-ins)."""
    try:
        return inspect.signature(task.work)
    except (TypeError, ValueError):
        return None


class Accepts(NamedTuple):
    """The names that a callable can be given, and whether it takes any name besides."""

    names: frozenset[str]
    anything: bool

    def takes(self, name: str) -> bool:
        """Whether a result goes in under this name."""
        return self.anything or name in self.names

    @property
    def conversation(self) -> str | None:
        """``session`` or ``session_id``, if it asks for one of them."""
        return next((name for name in RESERVED if name in self.names), None)


def parameters(task: Task) -> Accepts:
    """What a callable can be given.

    Raises ``GraphError`` if it needs an argument that no task before it gives.
    """
    found = _signature(task)
    if found is None:
        return Accepts(frozenset(), anything=True)
    named = [p for p in found.parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    given = {name for name, _ in task.after} | set(RESERVED)
    for each in found.parameters.values():
        lacking = each.name not in given or each.kind is each.POSITIONAL_ONLY
        if (
            lacking
            and each.default is each.empty
            and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        ):
            raise GraphError(
                f"task {task.key!r} calls a function that needs {each.name!r}, and the results that it is given are "
                f"{[name for name, _ in task.after]}: name the task in after=, as after={{{each.name!r}: KEY}} where the "
                "names differ",
                path=(task.key,),
            )
    anything = any(p.kind is p.VAR_KEYWORD for p in found.parameters.values())
    return Accepts(frozenset(p.name for p in named), anything)


def arguments_of(after: Iterable[After] | Mapping[str, After] | After, key_of: Callable[[After], str]) -> Any:
    """``after`` as pairs of argument and key: a list names each argument by its key."""
    if isinstance(after, Mapping):
        return tuple((str(name), key_of(each)) for name, each in after.items())
    listed = [after] if isinstance(after, str | Task) or callable(after) else list(after)
    return tuple((key, key) for key in map(key_of, listed))


# Fingerprints: what makes a result of one run good for another


def fingerprint(task: Task, upstream: Iterable[bytes], base: bytes) -> bytes:
    """A digest of all that a task's result depends on: its own definition, those before it, and the ``base`` session.

    A function is known by its name and its byte code, so that edited code runs anew; what it reads from elsewhere is not
    seen: ``version=`` says that it changed.
    """
    tools = task.tools if isinstance(task.tools, Mapping) else {"": task.tools}
    told = [
        task.key,
        encode_message(Message.of(task.work)) if task.prompts else function_digest(task.work),
        [list(pair) for pair in task.after],
        task.continues,
        {str(name): function_digest(tool) for name, tool in tools.items()},
        canonical_json(freeze(task.params or {}, "params")),
        dynamic_segments(task.dynamic) if task.dynamic else None,
        task.max_rounds,
        task.version,
    ]
    digest = blake2b(base, digest_size=16)
    digest.update(msgspec.msgpack.encode(told))
    for each in upstream:
        digest.update(each)
    return digest.digest()


def function_digest(function: object) -> str:
    """What a callable is known by: names and byte code, also of what a partial holds; for other objects, their class."""
    if function is None:
        return ""
    if isinstance(function, functools.partial):
        bound = repr((function.args, sorted(function.keywords.items())))
        return f"partial {function_digest(function.func)} {bound}"
    inner = inspect.unwrap(function) if callable(function) else function
    inner = getattr(inner, "__func__", inner)
    name = f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', type(inner).__qualname__)}"
    code = getattr(inner, "__code__", None)
    return name if code is None else f"{name} {_code_digest(code).hex()}"


@functools.lru_cache(maxsize=1024)
def _code_digest(code: CodeType) -> bytes:
    digest = blake2b(code.co_code, digest_size=12)
    digest.update(repr((code.co_names, code.co_varnames, code.co_argcount, code.co_kwonlyargcount)).encode())
    for constant in code.co_consts:
        digest.update(_code_digest(constant) if isinstance(constant, CodeType) else _constant(constant))
    return digest.digest()


def _constant(value: object) -> bytes:
    return repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value).encode()


def checked_key(key: object) -> str:
    """The key, if it can be one; raises ``GraphError``."""
    if not isinstance(key, str) or not key.strip():
        raise GraphError(f"the key {key!r} is no text: give each task a name of its own")
    check_text(key, "key")
    return key
