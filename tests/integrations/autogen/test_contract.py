"""Classic agents keep the contract of an adapter."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from autogen import ConversableAgent, GroupChatManager
from tests.integrations.autogen.chats import config, equip, no_calls, once, person, streaming
from tests.integrations.promises import agree

from llmbuffer import Message
from llmbuffer.testing import AdapterContract, Agent, Group, Setup
from llmbuffer.testing.scripts import schema_of
from llmbuffer_autogen import plugin
from llmbuffer_autogen.classic import BufferedConversableAgent, BufferedGroupChat, fork_group_chat
from llmbuffer_autogen.classic.host import ConversableHost

HOST = ConversableHost()


def llm(url: str, setup: Setup, **more: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if setup.wire == "anthropic":
        fields |= {"api_type": "anthropic", "max_tokens": 500}
    return config(url, setup.model, **fields, **more)


class Chat(Agent):
    """A user who runs tools, and an assistant with a model."""

    def __init__(self, url: str, setup: Setup, kept: Mapping[str, Any] | None = None, **more: Any) -> None:
        self.setup, self.url = setup, url
        self.users: dict[str, ConversableAgent] = {}
        told: dict[str, Any] = {
            "llm_config": llm(url, setup, **more),
            "human_input_mode": "NEVER",
        }
        if setup.dynamic:
            told["update_agent_state_before_reply"] = [_updated(setup)]
        else:
            told["system_message"] = setup.system
        if setup.mode is None:
            self.agent: Any = ConversableAgent("helper", **told)
        else:
            given: dict[str, Any] = {"mode": setup.mode, "policy": setup.policy, "session": setup.session}
            self.agent = BufferedConversableAgent("helper", **given, **told)
        for name, messages in (kept or {}).items():
            self.agent._oai_messages[self.user(name)] = messages
        self._offered = list(setup.tools)
        equip(self.agent, self.user("one"), setup.tools)
        once(self.agent)
        if setup.stream:
            streaming(self.agent)
        self.seam = None if setup.mode is None else self.agent.seam

    def user(self, conversation: str) -> ConversableAgent:
        if conversation not in self.users:
            self.users[conversation] = person()
            self.users[conversation].register_function(dict(self.setup.tools))
        return self.users[conversation]

    def say(self, text: str, *, conversation: str = "one") -> str:
        user = self.user(conversation)
        user.initiate_chat(self.agent, message=text, clear_history=False, silent=True)
        return str(user.last_message(self.agent)["content"])

    async def asay(self, text: str, *, conversation: str = "one") -> str:
        user = self.user(conversation)
        await user.a_initiate_chat(self.agent, message=text, clear_history=False, silent=True)
        return str(user.last_message(self.agent)["content"])

    def history(self, *, conversation: str = "one") -> list[Message]:
        out: list[Message] = []
        for item in self.agent.chat_messages[self.user(conversation)]:
            results = item.get("tool_responses")
            out += [HOST.to_message(each) for each in results or [item]]
        return out

    def offer(self, names: Sequence[str]) -> None:
        for name in self._offered:
            self.agent.update_tool_signature(name, is_remove=True)
        for name in names:
            self.agent.update_tool_signature(schema_of(self.setup.tools[name]), is_remove=False)
        self._offered = list(names)

    def redact(self, text: str, *, conversation: str = "one") -> None:
        for item in self.agent.chat_messages[self.user(conversation)]:
            if isinstance(item.get("content"), str):
                item["content"] = item["content"].replace(text, "(redacted)")

    def structured(self, text: str, fields: Mapping[str, type]) -> Mapping[str, Any]:
        from pydantic import create_model

        wanted: Any = {name: (kind, ...) for name, kind in fields.items()}
        shape = create_model("Answer", **wanted)
        other = Chat(self.url, self.setup, response_format=shape)
        found: Mapping[str, Any] = json.loads(other.say(text))
        return found

    def saved(self) -> Any:
        return {name: list(self.agent.chat_messages[user]) for name, user in self.users.items()}


def _updated(setup: Setup) -> Callable[..., None]:
    def update(agent: ConversableAgent, messages: list[dict[str, Any]]) -> None:
        agent.update_system_message(setup.instructions())

    return update


class Discussion(Group):
    """A group chat in which each member speaks once a round."""

    def __init__(self, url: str, setup: Setup, personas: Mapping[str, str]) -> None:
        from autogen import GroupChat

        told = [
            ConversableAgent(
                name,
                f"{setup.instructions()}\n\n{_persona(setup, text)}",
                llm_config=llm(url, setup),
                human_input_mode="NEVER",
            )
            for name, text in personas.items()
        ]
        given: dict[str, Any] = {
            "agents": told,
            "messages": [],
            "max_round": len(told) + 1,
            "speaker_selection_method": "round_robin",
        }
        if setup.mode is None:
            self.group: Any = GroupChat(**given)
        else:
            self.group = BufferedGroupChat(**given, mode=setup.mode, policy=setup.policy)
            self.seam = self.group.seams.of(setup.model)
        self.manager = GroupChatManager(groupchat=self.group, llm_config=False)
        self.user = person(is_termination_msg=lambda _: False)

    def discuss(self, text: str) -> list[tuple[str, str]]:
        before = len(self.group.messages) + 1
        self.user.initiate_chat(self.manager, message=text, clear_history=False, silent=True)
        return [(each["name"], each["content"]) for each in self.group.messages[before:]]


def _persona(setup: Setup, text: str) -> str:
    if setup.mode != "team":
        return text
    from llmbuffer.reconcile import persona

    return persona(text)


class TestClassic(AdapterContract):
    """A user proxy and a buffered agent; group chats; forks of them."""

    capabilities = frozenset(
        {
            "tools", "parallel-tools", "hides", "async", "stream", "dynamic", "edits", "conversations", "structured",
            "persistence", "fan-out", "team",
        }
    )  # fmt: skip
    served = (("openai", "gpt-5.5"), ("openai", "gpt-5.6"))

    def host(self) -> ConversableHost:
        return HOST

    def agent(self, url: str, setup: Setup) -> Chat:
        return Chat(url, setup)

    def restored(self, url: str, setup: Setup, saved: Any) -> Chat:
        return Chat(url, setup, saved)

    def fan_out(self, url: str, setup: Setup, tasks: Sequence[str]) -> list[Any]:
        helper = ConversableAgent(
            "helper", setup.instructions(), llm_config=llm(url, setup), human_input_mode="NEVER"
        )
        user = person()
        group = BufferedGroupChat(
            agents=[user, helper],
            messages=[],
            max_round=2,
            speaker_selection_method="round_robin",
            session=setup.session,
        )
        manager = GroupChatManager(groupchat=group, llm_config=False)
        forks = fork_group_chat(group, tasks, manager=manager, sender=user)
        with ThreadPoolExecutor(len(forks)) as pool:
            results = list(pool.map(lambda fork: fork.start(silent=True), forks))
        assert len(results) == len(forks)
        return [fork.group.messages[-1]["content"] for fork in forks]

    def group(self, url: str, setup: Setup, personas: Mapping[str, str]) -> Discussion:
        return Discussion(url, setup, personas)


def test_a_person_stops_at_a_reply_that_calls_nothing() -> None:
    assert no_calls({"content": "Done."})
    assert not no_calls({"tool_calls": [{"id": "1"}]})


def test_the_plugin_says_what_the_contract_tries() -> None:
    agree(plugin.CAPABILITIES, TestClassic.capabilities)
