"""What the dialects share: reading responses, and the SDK's own view of a body."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ..errors import DialectError

__all__ = ["as_dict", "count_field", "sdk_arguments"]


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
    value = dump(exclude_unset=True)
    assert isinstance(value, Mapping)
    return value


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

    The signature of the SDK that the program has imported decides; ``known`` stands in where none is imported.
    """
    accepted = _signature(module, owner) if module in sys.modules else known
    named = {key: value for key, value in body.items() if key in accepted}
    rest = {key: value for key, value in body.items() if key not in accepted}
    return {**named, "extra_body": rest} if rest else named


@lru_cache(maxsize=8)
def _signature(module: str, owner: str) -> frozenset[str]:
    target: Any = sys.modules[module]
    for name in owner.split("."):
        target = getattr(target, name)
    return frozenset(inspect.signature(target.create).parameters) - {"self", "extra_body"}
