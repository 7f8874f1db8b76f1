"""Which dialect a chat model speaks, by its class."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from llmbuffer.dialects.anthropic import Anthropic
from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.rules import Dialect

__all__ = ["dialect_of", "family_of", "name_of"]


def family_of(model: Any) -> str:
    """``openai``, ``anthropic``, ``google``, or ``other``: by the classes that a model's class is made from.

    >>> family_of(object())
    'other'
    """
    names = {each.__name__ for each in type(model).__mro__}
    for name, family in (
        ("BaseChatOpenAI", "openai"),
        ("ChatAnthropic", "anthropic"),
        ("ChatGoogleGenerativeAI", "google"),
    ):
        if name in names:
            return family
    return "other"


def name_of(model: Any) -> str:
    """The name of the model, as its provider knows it; that of its class where it has none."""
    found = getattr(model, "model_name", None) or getattr(model, "model", None)
    return found if isinstance(found, str) and found else type(model).__name__


def dialect_of(model: Any) -> str | Dialect:
    """The dialect of a chat model. Of a class that is not known nothing is promised: no mark and no field is added to it.

    >>> dialect_of(object()).rules.name
    'openai-compatible'
    """
    family = family_of(model)
    if family == "openai":
        if any(each.__name__ == "ChatDeepSeek" for each in type(model).__mro__):
            return "deepseek"
        return "openai-responses" if speaks_responses(model, {}) else "openai"
    if family == "anthropic":
        return _anthropic(model)
    return "gemini" if family == "google" else OpenAIChat(OpenAIChat().bind("").rules)


def speaks_responses(model: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a call of an OpenAI model goes to the Responses API."""
    chooses = getattr(model, "_use_responses_api", None)
    return bool(chooses({**getattr(model, "_default_params", {}), **kwargs})) if callable(chooses) else False


def _anthropic(model: Any) -> str | Dialect:
    """Anthropic's rules. LangChain hoists an instruction that stands between messages, unless the model's profile takes it."""
    dialect = Anthropic().bind(name_of(model))
    if dialect.rules.midway_role is None or (getattr(model, "profile", None) or {}).get(
        "mid_conversation_system_messages"
    ):
        return "anthropic"
    return Anthropic(replace(dialect.rules, midway_role=None))
