"""DeepSeek's chat completions."""

from __future__ import annotations

from msgspec.structs import replace

from ..rules import CacheRules
from . import deepseek_rules
from .openai_chat import OpenAIChat
from .openai_rules import UNKNOWN

__all__ = ["DeepSeek"]

_UNKNOWN = replace(UNKNOWN, name="deepseek-unknown", frozen_params=frozenset())


class DeepSeek(OpenAIChat):
    """The ``deepseek`` dialect: OpenAI's chat format with an automatic cache, without marks and without a routing key.

    Since ``deepseek-v4`` a stored prefix is read as a whole or not at all, so forks read a shared prefix only if it ends
    where an earlier request or reply ended, or from the third one on. ``reasoning_content`` of replies is sent back with
    them: requests with tools are refused without it, others ignore it (DeepSeek, guide on the thinking mode).

    >>> DeepSeek().bind("deepseek-v4-pro").rules.match
    'units'
    """

    name = "deepseek"
    default_model = "deepseek-v4-pro"

    @staticmethod
    def rules_for(model: str) -> CacheRules:
        """The rules of one model; for an unknown one nothing is promised."""
        return deepseek_rules.rules_for(model) or _UNKNOWN
