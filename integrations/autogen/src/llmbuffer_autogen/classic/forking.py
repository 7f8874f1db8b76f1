"""Forks of a group chat: the same agents and the same history so far, each fork with a task of its own."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from autogen import GroupChatManager

from .agent import BufferedAgentMixin, _Own
from .groupchat import BufferedGroupChat
from .seams import Seams
from .taps import install

__all__ = ["GroupChatFork", "fork_group_chat"]


class GroupChatFork(NamedTuple):
    """One fork: its ``group``, its ``manager``, the agent that puts the ``task`` (``sender``), and the task."""

    group: BufferedGroupChat
    manager: Any
    sender: Any
    task: str

    def start(self, **kwargs: Any) -> Any:
        """Run the fork with its task; the ``ChatResult``. Arguments are those of ``initiate_chat``."""
        return self.sender.initiate_chat(
            self.manager, message=self.task, **{"clear_history": False, **kwargs}
        )

    async def astart(self, **kwargs: Any) -> Any:
        """The same with ``a_initiate_chat``."""
        return await self.sender.a_initiate_chat(
            self.manager, message=self.task, **{"clear_history": False, **kwargs}
        )

    def __repr__(self) -> str:
        return f"GroupChatFork(agents={self.group.agent_names}, task=<{len(self.task)}>)"


def fork_group_chat(
    group: BufferedGroupChat, tasks: Iterable[str], *, manager: Any = None, sender: Any = None
) -> list[GroupChatFork]:
    """Forks of ``group``, one for each task, in their order: what the group has sent so far is read from the cache by all.

    Each has copies of the agents, with their histories, tools and counters, and sessions that are forks of the group's;
    forks see nothing of each other, and may run in threads of their own. Model clients and tools are shared. ``manager``
    defaults to the one that ran the group last, ``sender`` to the agent whose message began the chat.

    Raises ``ValueError`` where the group never ran and no manager is given.

        forks = fork_group_chat(group, ["Plan tests.", "Plan docs."])
        results = [fork.start() for fork in forks]
    """
    manager = group.manager if manager is None else manager
    if manager is None:
        raise ValueError("the group chat has not run and no manager is given: pass manager=…")
    first = group.messages[0].get("name") if group.messages else None
    asks = sender or group.agent_by_name(first or "") or group.agents[0]
    told = list(tasks)
    seams = group.seams.forks(len(told))
    return [_fork(group, task, manager, asks, own) for task, own in zip(told, seams, strict=True)]


def _fork(group: BufferedGroupChat, task: str, manager: Any, sender: Any, seams: Seams) -> GroupChatFork:
    memo: dict[int, Any] = {}
    agents = {
        agent: copy.copy(agent) for agent in {**dict.fromkeys(group.agents), manager: None, sender: None}
    }
    for agent, made in agents.items():
        _detach(agent, made, agents, memo)
    given = {each.name: getattr(group, each.name) for each in fields(group) if each.init}
    given |= {
        "agents": [agents[agent] for agent in group.agents],
        "messages": copy.deepcopy(group.messages),
        "allow_repeat_speaker": _mapped(group.allow_repeat_speaker, agents),
        "allowed_or_disallowed_speaker_transitions": _mapped(
            group.allowed_or_disallowed_speaker_transitions, agents
        ),
    }
    made_group = type(group)(**given)
    made_group.adopt(seams)
    made_manager = agents[manager]
    _hand_over(made_manager, group, made_group)
    return GroupChatFork(made_group, made_manager, agents[sender], task)


def _detach(agent: Any, made: Any, agents: Mapping[Any, Any], memo: dict[int, Any]) -> None:
    """Give a copy what is its own: histories, counters, replies and hooks, told in terms of the other copies."""
    made._oai_messages = defaultdict(
        list, {agents.get(who, who): copy.deepcopy(said) for who, said in agent._oai_messages.items()}
    )
    made._oai_system_message = copy.deepcopy(agent._oai_system_message)
    made._consecutive_auto_reply_counter = defaultdict(
        int, _mapped(dict(agent._consecutive_auto_reply_counter), agents)
    )
    made._max_consecutive_auto_reply_dict = defaultdict(
        made.max_consecutive_auto_reply, _mapped(dict(agent._max_consecutive_auto_reply_dict), agents)
    )
    made.reply_at_receive = defaultdict(bool, _mapped(dict(agent.reply_at_receive), agents))
    made._reply_func_list = [
        {**each, "trigger": _mapped(each["trigger"], agents)} for each in agent._reply_func_list
    ]
    made.hook_lists = {
        name: [_rebound(hook, agent, made) for hook in hooks] for name, hooks in agent.hook_lists.items()
    }
    made._function_map = dict(agent._function_map)
    made._human_input = list(agent._human_input)
    made.context_variables = copy.deepcopy(agent.context_variables, memo)
    if agent.client is not None:
        made.client = copy.copy(agent.client)
        made.client.clear_usage_summary()
    if isinstance(made, BufferedAgentMixin):
        made.__dict__["_buffer"] = _Own(made._buffer.seams, made._buffer.conversation)
        install(made.client, made._asking_beside)


def _hand_over(manager: Any, group: BufferedGroupChat, made: BufferedGroupChat) -> None:
    """Have the copy of a manager run the copy of its group."""
    if isinstance(manager, GroupChatManager):
        manager._groupchat = made
    for each in manager._reply_func_list:
        for name in ("config", "init_config"):
            told = each.get(name)
            if isinstance(told, BufferedGroupChat) and told.seams is group.seams:
                each[name] = made  # AutoGen keeps a copy of the group there
    made._meet(manager)


def _mapped(value: Any, agents: Mapping[Any, Any]) -> Any:
    """A value in which copies stand for the agents that they were made from."""
    if isinstance(value, dict):
        return {_mapped(key, agents): _mapped(each, agents) for key, each in value.items()}
    if isinstance(value, list):
        return [_mapped(each, agents) for each in value]
    try:
        return agents.get(value, value)
    except TypeError:  # not hashable, so none of the agents
        return value


def _rebound(hook: Any, agent: Any, made: Any) -> Any:
    """A hook that is a method of the agent, as the copy's own."""
    return getattr(made, hook.__name__) if getattr(hook, "__self__", None) is agent else hook
