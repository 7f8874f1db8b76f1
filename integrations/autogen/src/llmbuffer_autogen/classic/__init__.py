"""Classic AutoGen: conversable agents and group chats whose prompts stay cacheable. Importing this imports ``autogen``."""

from __future__ import annotations

from ..generations import needed

needed("classic")

from .agent import BufferedAgentMixin, BufferedConversableAgent  # noqa: E402 - the framework is looked for first
from .forking import GroupChatFork, fork_group_chat  # noqa: E402
from .groupchat import BufferedGroupChat  # noqa: E402
from .seams import Seams  # noqa: E402

__all__ = [
    "BufferedAgentMixin",
    "BufferedConversableAgent",
    "BufferedGroupChat",
    "GroupChatFork",
    "Seams",
    "fork_group_chat",
]
