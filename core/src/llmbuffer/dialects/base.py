"""What the dialects share: reading responses, and the SDK's own view of a body."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..errors import DialectError, EncodingError, LossyError
from ..frozen import FrozenDict, freeze
from ..parts import ToolCall
from ..rules import CacheRules, Diagnosis

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "INVALID_JSON",
    "ModelRules",
    "as_dict",
    "count_field",
    "endpoint",
    "json_object",
    "mapping_field",
    "sdk_arguments",
]

# The one key of an object that stands for arguments which are no JSON object, where the wire takes objects only:
# Anthropic, page on fine-grained tool streaming.
INVALID_JSON = "INVALID_JSON"


class ModelRules:
    """The part of a dialect that knows the rules of each model. ``rules`` given by hand replace the table."""

    rules_for: Callable[[str], CacheRules]

    def __init__(self, rules: CacheRules | None = None) -> None:
        self._given = rules is not None
        self.rules = rules if rules is not None else self.chosen(self.rules_for(""))

    def bind(self, model: str) -> Self:
        """This dialect with the rules of ``model``; rules that were given by hand stay."""
        return self if self._given else self._bound(self.chosen(self.rules_for(model)))

    def answering(self, calls: Mapping[str, str]) -> Self:
        """This dialect: what a result answers is told by its id, unless a dialect says otherwise."""
        return self

    def chosen(self, rules: CacheRules) -> CacheRules:
        """The rules with what the dialect's options say where sources disagree; as they are, unless it has options."""
        return rules

    def prewarm(self, body: Mapping[str, Any]) -> FrozenDict | None:
        """No way to fill the cache alone, unless a dialect says otherwise."""
        return None

    def read_id(self, response: Any) -> str | None:
        """No diagnostics, unless a dialect says otherwise."""
        return None

    def read_diagnosis(self, response: Any) -> Diagnosis | None:
        """No diagnostics, unless a dialect says otherwise."""
        return None

    def _bound(self, rules: CacheRules) -> Self:
        bound = copy(self)
        bound.rules = rules
        return bound


def as_dict(response: Any) -> Mapping[str, Any]:
    """A response as a mapping: SDK objects give the fields that the server sent, mappings stay as they are."""
    if isinstance(response, Mapping):
        return response
    dump = getattr(response, "model_dump", None)
    if dump is None:
        raise DialectError(
            f"a {type(response).__name__} is no response: pass the SDK's response object or its dict form "
            "(of a raw response, the parsed one)"
        )
    # By alias and as JSON: the names and values that the server sent. A server that departs from the SDK's types is read,
    # not warned about.
    value = dump(mode="json", by_alias=True, exclude_unset=True, warnings=False)
    assert isinstance(value, Mapping)
    return value


def mapping_field(holder: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object in a response; empty where the server left it out or sent null."""
    value = holder.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DialectError(f"the response's {name!r} is a {type(value).__name__}: expected an object")
    return value


def endpoint(client: Any, path: str) -> Any:
    """``client.chat.completions`` for the path ``chat.completions``; raises ``DialectError`` for another SDK's client."""
    target = client
    for name in path.split("."):
        target = getattr(target, name, None)
        if target is None:
            raise DialectError(
                f"a {type(client).__name__} has no {path!r}: give a client of the dialect's own SDK"
            )
    return target


def json_object(call: ToolCall, provider: str) -> FrozenDict:
    """The arguments of a call for a wire that takes a JSON object only. Raises ``LossyError`` for anything else.

    >>> json_object(ToolCall("1", "f", '{"b": 1}'), "Gemini")
    {'b': 1}
    """
    try:
        value = _DECODER.decode(call.arguments)
        if isinstance(value, dict):
            return freeze(value, f"arguments of call {call.id!r}")
        found = f"a JSON {type(value).__name__}"
    except EncodingError as error:
        found = str(error)
    except (ValueError, RecursionError) as error:
        found = f"no JSON ({error})"
    raise LossyError(
        f"call {call.id!r} of tool {call.name!r}: its arguments are {found}, and {provider} takes a JSON object only; "
        "repair them, or answer the call on a dialect that keeps strings"
    )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key stands twice")
    return out


_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates)


def count_field(usage: Mapping[str, Any], name: str) -> int:
    """A token count of a usage object; 0 where the server left it out or sent null."""
    value = usage.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise DialectError(f"usage field {name!r} is {value!r}: expected a token count")
    return value


def sdk_arguments(body: Mapping[str, Any], module: str, owner: str, known: frozenset[str]) -> dict[str, Any]:
    """Split a body into the arguments that the SDK's ``create`` takes and ``extra_body`` for the rest.

    The signature of the SDK that the program has imported decides; ``known`` stands in where none is imported. Arguments
    of ``create`` that are no fields of a body (``timeout``, ``extra_headers``) are not mixed up with fields of that name.
    """
    accepted = (_signature(module, owner) if module in sys.modules else None) or known
    named = {key: value for key, value in body.items() if key in accepted}
    rest = {key: value for key, value in body.items() if key not in accepted}
    return {**named, "extra_body": rest} if rest else named


@lru_cache(maxsize=8)
def _signature(module: str, owner: str) -> frozenset[str]:
    """The fields that ``create`` takes; none for a module that only has the SDK's name."""
    target: Any = sys.modules[module]
    for name in owner.split("."):
        target = getattr(target, name, None)
    create = getattr(target, "create", None)
    return frozenset() if create is None else frozenset(inspect.signature(create).parameters) - _NO_FIELDS


_NO_FIELDS = {"self", "extra_body", "extra_headers", "extra_query", "timeout"}
