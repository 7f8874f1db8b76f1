"""Users who ask alike through one LLM: nothing of one reaches another, and what is forgotten is gone."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from crewai import Agent
from crewai.tools import tool
from tests.integrations.crewai.kitchen import PLAIN, bodies, kitchen, shared, system

from llmbuffer import Session, StableContext
from llmbuffer.errors import MessageError
from llmbuffer.simulate import Asked, Call, Reply
from llmbuffer.testing import assert_prefix_stable
from llmbuffer_crewai import AgentFactory, BufferedLLM, dynamic_text
from llmbuffer_crewai.keeping import Recent
from llmbuffer_crewai.naming import Key, Place
from llmbuffer_crewai.turns import Turns, Whose, own

_NOW = {"user": "nobody"}


@tool("balance")
def balance() -> str:
    """What the user owns."""
    return f"{_NOW['user']} owns 100, account {_NOW['user']}-1234"


def looks_then_answers(asked: Asked) -> Reply:
    """A call of the tool for each question, and the same answer for all users."""
    if asked.body["messages"][-1]["role"] == "tool":
        return Reply("You are fine.")
    return Reply(calls=(Call("balance", "{}"),))


def helper(llm: Any, user: str = "somebody", **options: Any) -> Any:
    return Agent(role="Helper", goal="Help", backstory=f"The user is {user}.", llm=llm, **options)


class User:
    """Somebody who keeps a history, in memory or in a database."""

    def __init__(self, name: str, agent: Any, *, stored: bool = False) -> None:
        self.name, self.agent, self.stored = name, agent, stored
        self.said: list[dict[str, str]] = []

    def ask(self, text: str, kickoff: Callable[..., Any] | None = None) -> None:
        _NOW["user"] = self.name
        self.said.append({"role": "user", "content": text})
        given = json.loads(json.dumps(self.said)) if self.stored else list(self.said)
        output = self.agent.kickoff(given) if kickoff is None else kickoff(self.agent, given)
        self.said.append({"role": "assistant", "content": output.raw})


def told(body: Any) -> str:
    return json.dumps(body["messages"])


# Turns


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("agents", [1, 2])
def test_no_tool_result_of_one_user_reaches_another(agents: int, stored: bool) -> None:
    with kitchen(PLAIN, looks_then_answers) as (server, llm):
        wrapped = BufferedLLM(llm)
        made = [helper(wrapped, f"{n}", tools=[balance]) for n in range(agents)]
        users = [User("ANN", made[0], stored=stored), User("BOB", made[-1], stored=stored)]
        whose = []
        for question in ("Am I solvent?", "Sure?", "Really?"):
            for user in users:
                before = len(server.requests)
                user.ask(question)
                whose += [user.name] * (len(server.requests) - before)
        found = bodies(server)
    assert len(found) == 12
    other = {"ANN": "BOB", "BOB": "ANN"}
    assert not any(f"{other[name]}-1234" in told(body) for name, body in zip(whose, found, strict=True))
    assert told(found[-1]).count("BOB-1234") == (1 if stored else 3)
    assert told(found[-1]).count("Current Task: ") == 3


def test_a_history_that_began_elsewhere_is_not_taken_for_one_that_is_known() -> None:
    with kitchen(PLAIN, looks_then_answers) as (server, llm):
        agent = helper(BufferedLLM(llm), tools=[balance])
        User("ANN", agent).ask("Am I solvent?")
        bob = User("BOB", agent)
        bob.said = [
            {"role": "user", "content": "Am I solvent?"},
            {"role": "assistant", "content": "You are fine."},
        ]
        bob.ask("Sure?")
        found = bodies(server)
    assert "ANN-1234" in told(found[1])
    assert not any("ANN-1234" in told(body) for body in found[2:])


def _sync(agent: Any, given: Any) -> Any:
    return agent.kickoff(given)


def _to_thread(agent: Any, given: Any) -> Any:
    return asyncio.run(agent.kickoff_async(given))


def _awaited(agent: Any, given: Any) -> Any:
    return asyncio.run(agent.akickoff(given))


@pytest.mark.parametrize("kickoff", [_sync, _to_thread, _awaited])
def test_in_a_conversation_with_a_name_turns_of_a_stored_history_are_whole(kickoff: Any) -> None:
    with kitchen(PLAIN, looks_then_answers) as (server, llm):
        wrapped = BufferedLLM(llm)
        agent = helper(wrapped, tools=[balance])
        users = [User("ANN", agent, stored=True), User("BOB", agent, stored=True)]
        for question in ("Am I solvent?", "Sure?"):
            for user in users:
                with wrapped.conversation(user.name):
                    user.ask(question, kickoff)
        found = bodies(server)
        assert sorted(wrapped.seam.accounts) == [("ANN", "Helper"), ("BOB", "Helper")]
        assert wrapped.seam.breaks == ()
    ann, bob = [*found[:2], *found[4:6]], [*found[2:4], *found[6:]]
    assert_prefix_stable(ann)
    assert_prefix_stable(bob)
    assert [told(body).count("ANN-1234") for body in (ann[-1], bob[-1])] == [2, 0]
    assert [told(body).count("BOB-1234") for body in (ann[-1], bob[-1])] == [0, 2]


def test_a_name_holds_for_the_llm_and_the_block_that_it_was_given_for() -> None:
    with kitchen(PLAIN, looks_then_answers) as (_, llm):
        one, other = BufferedLLM(llm), BufferedLLM(llm)
        with one.conversation("a"), other.conversation("b"), one.conversation("c"):
            assert (one.seam.keys.name, other.seam.keys.name) == ("c", "b")
        assert (one.seam.keys.name, other.seam.keys.name) == (None, None)
        with pytest.raises(MessageError, match="the conversation's name is ''"), one.conversation(""):
            pass


def test_what_was_taken_out_of_an_answer_takes_its_tool_calls_along() -> None:
    with kitchen(PLAIN, looks_then_answers) as (server, llm):
        wrapped = BufferedLLM(llm)
        ann = User("ANN", helper(wrapped, tools=[balance]))
        with wrapped.conversation("ann"):
            ann.ask("Am I solvent?")
            ann.said[1]["content"] = "fine."
            ann.ask("Sure?")
        found = bodies(server)
    assert "ANN-1234" not in told(found[2])


# Memories


class Recalled:
    """A memory that holds one text, until that is erased."""

    def __init__(self, text: str) -> None:
        self.text = text

    def recall(self, query: str, limit: int = 5) -> list[Any]:
        return [SimpleNamespace(format=lambda: self.text)] if self.text else []

    def extract_memories(self, text: str) -> list[Any]:
        return []


@pytest.mark.moves_prefix(
    reason="memories are recalled anew for each request, and are no part of the history"
)
@pytest.mark.parametrize("named", [False, True])
def test_a_memory_is_told_once_and_to_its_user_alone(named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crewai.tools.memory_tools.create_memory_tools", lambda memory: [])
    with kitchen(PLAIN, lambda asked: Reply("Fine.")) as (server, llm):
        wrapped = BufferedLLM(llm)
        users = []
        for name in ("ANN", "BOB"):
            agent = helper(wrapped, name)
            agent.__dict__["memory"] = Recalled(f"{name}-1234")
            users.append(User(name, agent))
        for question in ("Hello", "Sure?"):
            for user in users:
                with wrapped.conversation(user.name if named else "both of them"):
                    user.ask(question)
                user.agent.__dict__["memory"].text = ""
        found = bodies(server)
    assert [("ANN-1234" in told(each), "BOB-1234" in told(each)) for each in found] == [
        (True, False),
        (False, True),
        (False, False),
        (False, False),
    ]
    assert "Current Task: Hello" in told(found[2])


# What is kept


@pytest.mark.parametrize("way", ["forget", "reset", "seam"])
def test_what_is_forgotten_is_gone(way: str) -> None:
    with kitchen(PLAIN, looks_then_answers) as (server, llm):
        made = AgentFactory(shared(PLAIN), llm=llm)
        agent = made.agent("Helper", "Help", "Kind.", tools=[balance])
        ann, bob = User("ANN", agent), User("BOB", agent)
        for user in (ann, bob):
            with made.llm.conversation(user.name):
                user.ask("Am I solvent?")
        assert not made.forget("nobody")
        if way == "forget":
            assert not made.forget("ANN", "Writer")
            assert made.forget("ANN", "Helper")
            assert not made.forget("ANN")
        else:
            (made if way == "reset" else made.llm.seam).reset()
        asked = made.account(agent="Helper").requests
        for user in (ann, bob):
            with made.llm.conversation(user.name):
                user.ask("Sure?")
        found = bodies(server)
    assert asked == (4 if way == "forget" else 0)
    assert "ANN-1234" not in told(found[4])
    assert ("BOB-1234" in told(found[6])) is (way == "forget")


def test_a_conversation_without_a_name_is_forgotten_by_the_one_that_it_has_in_the_accounts() -> None:
    with kitchen(PLAIN, looks_then_answers) as (server, llm):
        wrapped = BufferedLLM(llm)
        ann = User("ANN", helper(wrapped, tools=[balance]))
        ann.ask("Am I solvent?")
        [(conversation, _)] = wrapped.seam.accounts
        assert conversation is not None
        assert wrapped.forget(conversation)
        assert wrapped.seam.sessions == ()
        assert not wrapped.forget(conversation)
        ann.ask("Sure?")
        assert "ANN-1234" not in told(bodies(server)[2])


def _turn(number: int) -> list[dict[str, Any]]:
    call = {"id": "c", "type": "function", "function": {"name": "balance", "arguments": "{}"}}
    return [
        {"role": "user", "content": f"\nCurrent Task: question {number}", "cache_breakpoint": True},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": f"result {number}"},
    ]


def test_turns_of_the_last_conversations_are_kept() -> None:
    turns, answers = Turns(limit=3), [own(f"answer {number}") for number in range(10)]
    for number, answer in enumerate(answers):
        turns.remember(Place(f"c{number}", "Helper"), Whose(None, "a"), _turn(number), answer)
    whole = []
    for number, answer in enumerate(answers):
        history = [
            {"role": "user", "content": f"question {number}"},
            {"role": "assistant", "content": answer},
        ]
        whole.append(len(turns.restored(Whose(None, "a"), [*history, _turn(99)[0]], whole=True)) == 5)
    assert whole == [False] * 7 + [True] * 3
    assert len(turns) == 3
    assert len(turns._known) == 6


def test_turns_of_one_conversation_are_bounded() -> None:
    turns, place = Turns(), Place("c", "Helper")
    for number in range(1_000):
        turns.remember(place, Whose(None, "a"), _turn(number), own("answer"))
    assert len(turns) == 1
    assert len(turns._known) == 2 * 256


def test_an_answer_of_one_character_proves_nothing() -> None:
    turns = Turns()
    turns.remember(Place("c", "Helper"), Whose(None, "a"), _turn(1), own("5"))
    history = [{"role": "user", "content": "question 1"}, {"role": "assistant", "content": "5"}]
    found = turns.restored(Whose(None, "a"), [*history, _turn(2)[0]], whole=True)
    assert [each["content"] for each in found[:2]] == ["\nCurrent Task: question 1", "5"]
    assert len(found) == 3


def test_a_call_that_others_made_just_so_with_other_tools_is_not_gone_on_with() -> None:
    recent, said = Recent(), [{"role": "user", "content": "Bake."}]
    calls: list[Any] = [
        SimpleNamespace(key=Key(name, "Baker"), bare=said, tools=tools, answered=0)
        for name, tools in (("a", ["look"]), ("b", ["look"]), ("c", ["print"]))
    ]
    recent.add(calls[0])
    recent.add(calls[1])
    assert recent.find([*said, {"role": "user", "content": "Now."}]) is calls[1]
    recent.add(calls[2])
    assert recent.find(said) is None
    assert recent.forget("c")
    assert recent.find(said) is calls[1]


# Marks, and the brief


@pytest.mark.parametrize("mode", ["observe", "buffer"])
def test_marks_of_dynamic_text_never_reach_the_provider(mode: Any) -> None:
    found = []
    for now in ("10:00", dynamic_text("now", "10:00")):
        with kitchen(PLAIN, lambda asked: Reply("Fine.")) as (server, llm):
            wrapped = BufferedLLM(llm, mode=mode)
            helper(wrapped, f"Ann. It is {now}").kickoff("Hello, " + now)
            wrapped.call("At " + now)
            found.append(bodies(server))
    assert "\\u2063" not in json.dumps(found)
    assert "Hello, 10:00" in told(found[1][0])
    assert (found[0] == found[1]) is (mode == "observe")


@pytest.mark.parametrize(
    ("brief", "backstory", "system_text"),
    [
        ("Bake", "You like Bakewell tarts.", "Bake\n\nYou are Baker. You like Bakewell tarts."),
        ("Be kind.", "Be kind. You bake.", "Be kind.\n\nYou are Baker.  You bake."),
        ("Be kind", "Be kind to all.", "Be kind\n\nYou are Baker. Be kind to all."),
        ("Bake", "Bake\nBake rye.", "Bake\n\nYou are Baker. \nBake rye."),
    ],
)
def test_a_brief_is_taken_out_of_an_agents_text_only_as_lines_or_sentences(
    brief: str, backstory: str, system_text: str
) -> None:
    with kitchen(PLAIN, lambda asked: Reply("Fine.")) as (server, llm):
        made = AgentFactory(Session(StableContext(PLAIN, brief), dialect="openai"), llm=llm)
        made.agent("Baker", "Bake bread", backstory).kickoff("Hello")
        [body] = bodies(server)
    assert system(body) == f"{system_text}\nYour personal goal is: Bake bread"


def test_own_gives_another_object_for_any_answer_that_can_prove_something() -> None:
    for answer in ("ab", sys.intern("You are fine."), "\ud83c\udf5e!"):
        assert own(answer) == answer
        assert own(answer) is not answer
