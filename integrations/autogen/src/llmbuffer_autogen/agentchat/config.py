"""What ``dump_component`` keeps of the components, so that ``load_component`` makes them again."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from autogen_core import ComponentModel
from autogen_core.models import LLMMessage
from pydantic import BaseModel

from llmbuffer.errors import MessageError
from llmbuffer.reconcile import Policy

__all__ = ["ClientConfig", "ContextConfig", "dumped_policy", "loaded_policy"]


class ClientConfig(BaseModel):
    """A ``BufferedChatCompletionClient``. Sessions and accounts are not kept: a loaded one begins anew."""

    model_client: ComponentModel
    mode: str = "buffer"
    policy: dict[str, Any] = {}
    model: str | None = None
    dialect: str | None = None
    conversation: str | None = None
    member: str | None = None
    selector_prompt: str | None = None
    stream_usage: bool = True
    fork: str | None = None  # set while a team is being copied: which client its copies fork from


class ContextConfig(BaseModel):
    """A ``BufferedChatCompletionContext``. What was said is kept by ``save_state``."""

    buffer_size: int | None = None
    initial_messages: list[LLMMessage] | None = None


def dumped_policy(policy: Policy) -> dict[str, Any]:
    """The fields of a policy that differ from the defaults. Raises ``MessageError`` for a callable or a flagged pattern.

    >>> dumped_policy(Policy(learn=False, pinned=("Refunds",)))
    {'learn': False, 'pinned': ['Refunds']}
    """
    default, out = Policy(), {}
    for name in Policy.__struct_fields__:
        value = getattr(policy, name)
        if value != getattr(default, name):
            out[name] = [_text(each) for each in value] if isinstance(value, tuple) else value
    return out


def loaded_policy(fields: dict[str, Any]) -> Policy:
    """The policy of a config. Raises ``MessageError`` for unknown fields and values.

    >>> loaded_policy({"pinned": ["Refunds"]}).pinned
    ('Refunds',)
    """
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    unknown = sorted(given.keys() - set(Policy.__struct_fields__))
    if unknown:
        raise MessageError(f"unknown fields {unknown} of a policy in a component's config")
    return msgspec.structs.replace(Policy(), **given)


def _text(pattern: Any) -> str:
    if isinstance(pattern, str):
        return pattern
    if isinstance(pattern, re.Pattern) and isinstance(pattern.pattern, str):
        flags = "".join(letter for letter, flag in _FLAGS.items() if pattern.flags & flag)
        return f"(?{flags}){pattern.pattern}" if flags else pattern.pattern
    raise MessageError(
        f"a {type(pattern).__name__} in a policy cannot be dumped: declare it by a pattern instead"
    )


_FLAGS = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE, "a": re.ASCII}
