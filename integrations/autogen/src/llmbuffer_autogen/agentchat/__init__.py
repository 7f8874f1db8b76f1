"""The agentchat generation: model clients, contexts and teams of autogen-core and autogen-agentchat.

>>> from llmbuffer_autogen.agentchat import BufferedChatCompletionClient
>>> BufferedChatCompletionClient.component_type
'model'
"""

from __future__ import annotations

from llmbuffer.reconcile import dynamic_text, persona

from ..generations import needed

needed("agentchat")

from .client import BufferedChatCompletionClient
from .context import BufferedChatCompletionContext
from .convert import ModelHost
from .forking import TeamFork, fork_team

__all__ = [
    "BufferedChatCompletionClient",
    "BufferedChatCompletionContext",
    "ModelHost",
    "TeamFork",
    "dynamic_text",
    "fork_team",
    "persona",
]
