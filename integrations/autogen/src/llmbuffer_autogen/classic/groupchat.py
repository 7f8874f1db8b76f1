"""Group chats whose members' prompts stay cacheable, the choice of the next speaker included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autogen import ConversableAgent, GroupChat, GroupChatManager

from llmbuffer import Session, Usage
from llmbuffer.reconcile import Policy
from llmbuffer.seam import Account, Mode, Seam

from .agent import SUMMARY, BufferedAgentMixin, adopted, tools_of
from .asking import Asking
from .seams import Seams
from .taps import install

__all__ = ["BufferedGroupChat"]

SELECTION = "speaker_selection_agent"  # AutoGen's name for the agent that chooses the next speaker


class _Chat:
    """What all copies of one group have together: AutoGen runs a group by a shallow copy of it."""

    def __init__(self) -> None:
        self.seams = Seams()
        self.manager: Any = None
        self.number = 1


@dataclass
class BufferedGroupChat(GroupChat):
    """A ``GroupChat`` whose members keep their prompts append-only, and in team mode share one prefix.

    It takes the place of ``GroupChat``; the agents may be plain ones. An agent with a model becomes a buffered one in
    place: its class becomes a subclass of its own class. ``mode``, ``policy``, ``session`` and ``dialect`` are as for
    ``llmbuffer.seam.Seam``, and hold for all members, for the choice of the next speaker (``auto``), and for the summary
    that the manager's model makes. ``mode="team"`` changes what the models read: one prefix for all, the history told
    alike to all with the speakers named, and last the agent's own instructions and its tools.

    ``usage`` is what the whole group used, ``accounts`` that of each member. Raises what ``GroupChat`` raises, and
    ``MessageError`` for an unknown mode.

        group = BufferedGroupChat(agents=[user, planner, coder], messages=[], max_round=8)
        manager = GroupChatManager(groupchat=group, llm_config=config)
        user.initiate_chat(manager, message="Build it.")
        group.accounts["planner"].usage.cache_read_tokens
    """

    mode: Mode = "buffer"
    policy: Policy | None = None
    session: Session | None = None
    dialect: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._chat = _Chat()
        self.adopt(Seams(mode=self.mode, policy=self.policy, session=self.session, dialect=self.dialect))

    def adopt(self, seams: Seams) -> None:
        """Go on with other sessions: all members with a model are buffered by them from now on."""
        self._chat.seams = seams
        seams.begun = self._declare
        for agent in self.agents:
            plain = isinstance(agent, ConversableAgent) and not isinstance(agent, GroupChatManager)
            if plain and agent.client is not None:
                adopted(agent, seams)

    @property
    def seams(self) -> Seams:
        """The sessions behind the members."""
        return self._chat.seams

    @property
    def manager(self) -> Any:
        """The manager that ran the group last; ``None`` before."""
        return self._chat.manager

    # What was used

    @property
    def usage(self) -> Usage:
        """The tokens that the provider reported for all requests of the group, cached ones among them."""
        return self.seams.usage

    @property
    def accounts(self) -> dict[str, Account]:
        """What each member used, by its name; the choice of speakers and summaries under names of their own."""
        names = {member for seam in self.seams.seams for _, member in seam.accounts if member is not None}
        return {name: self.seams.account(member=name) for name in sorted(names)}

    # The conversation

    def _declare(self, seam: Seam) -> None:
        """Tell a seam who will speak, so that a team has one prefix from the first request on."""
        if self.mode != "team":
            return
        opening = self.seams.opening_of(seam)
        for agent in members_of(self):
            seam.declare(agent.name, system=opening.told(agent.system_message), tools=tools_of(agent))
        if self.speaker_selection_method == "auto":
            seam.declare(SELECTION, system=opening.told(self.select_speaker_msg()))

    @property
    def conversation(self) -> str:
        """The name of the conversation; another one after the history was cleared."""
        return f"group/{self._chat.number}"

    def reset(self) -> None:
        """See ``GroupChat.reset``; what follows is a new conversation."""
        super().reset()
        self._chat.number += 1
        for seam in self.seams.seams:  # what was declared for the last one may have been another user's
            self._declare(seam)

    def _asking_for(self, agent: Any, manager: Any) -> Asking:
        """Who asks when a member replies to the manager."""
        self._meet(manager)
        return Asking(self.seams, conversation=self.conversation, member=agent.name)

    def _asking_beside(self) -> Asking:
        """Who asks when AutoGen uses the manager's model past all agents: for a summary of the chat."""
        return Asking(self.seams, conversation=f"{self.conversation}{SUMMARY}", member="manager" + SUMMARY)

    def _meet(self, manager: Any) -> None:
        self._chat.manager = manager
        install(manager.client, self._asking_beside)

    # The choice of the next speaker

    def select_speaker(self, last_speaker: Any, selector: Any) -> Any:
        """See ``GroupChat.select_speaker``."""
        self._meet(selector)
        return super().select_speaker(last_speaker, selector)

    async def a_select_speaker(self, last_speaker: Any, selector: Any) -> Any:
        """See ``GroupChat.a_select_speaker``."""
        self._meet(selector)
        return await super().a_select_speaker(last_speaker, selector)

    def _create_internal_agents(self, agents: Any, *args: Any, **kwargs: Any) -> Any:
        checking, selecting = super()._create_internal_agents(agents, *args, **kwargs)
        adopted(selecting, self.seams)
        selecting._buffer.conversation = self.conversation
        selecting._buffer.closing = self.select_speaker_prompt(agents)
        return checking, selecting


def members_of(group: BufferedGroupChat) -> list[Any]:
    """The agents of a group that a model speaks for."""
    return [agent for agent in group.agents if isinstance(agent, BufferedAgentMixin)]
