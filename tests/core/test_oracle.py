"""The oracle is a bound: no order of what is sent does better, and where nothing moves it is met."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbuffer import MessageError
from llmbuffer.testing.oracle import OracleFigures, measured, oracle
from llmbuffer.testing.scripts import clock, handbook, passage, personas, schema_of, standard_script, tools

Body = dict[str, Any]
# Texts of which none is a beginning of another one, some with a beginning in common.
WORDS = ["a" * 9, "b" * 4, "c" * 14, "dd-" + "e" * 5, "dd-" + "f" * 11, "g" * 7]


def body(*texts: str, system: str | None = None, model: str = "gpt-5.5", **fields: Any) -> Body:
    messages = [{"role": "user", "content": text} for text in texts]
    head = [] if system is None else [{"role": "system", "content": system}]
    return {"model": model, "messages": [*head, *messages], **fields}


def least_uncached(bags: Sequence[Sequence[str]]) -> int:
    """The fewest characters that any order of these requests leaves unread, by trying all."""
    shown = {word: f"user\x01text\x00{word}" for word in WORDS}
    orders = [
        sorted({"".join(shown[word] for word in order) for order in itertools.permutations(bag)})
        for bag in bags
    ]
    best = [10**9]

    def walk(chosen: tuple[str, ...], uncached: int) -> None:
        if uncached >= best[0]:
            return
        if len(chosen) == len(orders):
            best[0] = uncached
            return
        for prompt in orders[len(chosen)]:
            read = max((common(prompt, told) for told in chosen), default=0)
            walk((*chosen, prompt), uncached + len(prompt) - read)

    walk((), 0)
    return best[0]


def common(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


@settings(max_examples=150)
@given(st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3), min_size=2, max_size=4))
def test_no_order_of_the_blocks_does_better(bags: list[list[str]]) -> None:
    bound = oracle([body(*bag) for bag in bags], unit="characters")
    assert bound.uncached <= least_uncached(bags)


@settings(max_examples=60)
@given(st.data())
def test_no_order_does_better_where_text_comes_and_goes(data: st.DataObject) -> None:
    """Each request has most of the one before it: something is appended, and something may go."""
    bags: list[list[str]] = [[WORDS[0], WORDS[2]]]
    for _ in range(data.draw(st.integers(1, 3))):
        kept = [word for word in bags[-1] if word == WORDS[2] or data.draw(st.booleans())]
        new = data.draw(st.lists(st.sampled_from(WORDS), max_size=2, unique=True))
        bags.append([*kept, *new][-4:])
    bound = oracle([body(*bag) for bag in bags], unit="characters")
    assert bound.uncached <= least_uncached(bags)


@settings(max_examples=40)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_it_is_never_worse_than_what_was_sent(texts: list[str], chance: random.Random) -> None:
    bodies = []
    for length in range(1, len(texts) + 1):
        told = texts[:length]
        chance.shuffle(told)
        bodies.append(body(*told, system=f"Be kind. It is {chance.randrange(4)}. Be brief."))
    for unit in ("characters", "tokens"):
        assert oracle(bodies, unit=unit).uncached <= measured(bodies, unit=unit).uncached


@settings(max_examples=40)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=8))
def test_an_append_only_session_meets_it(texts: list[str]) -> None:
    bodies = [body(*texts[:length], system="Be kind. Be brief.") for length in range(1, len(texts) + 1)]
    assert oracle(bodies, unit="characters") == measured(bodies, unit="characters")


def test_an_append_only_session_of_a_provider_meets_it_in_tokens() -> None:
    script = standard_script(4)
    texts = [text for turn in script.turns for text in (turn.user, turn.answer)]
    schemas = [schema_of(each) for each in script.tools.values()]
    bodies = [body(*texts[:length], system=script.system, tools=schemas) for length in range(1, 9, 2)]
    best, sent = oracle(bodies, rounded=True), measured(bodies)
    assert sent.uncached == best.uncached
    assert oracle(bodies).uncached < best.uncached, "the step of 128 tokens costs something"
    assert sent.input > 4 * 4_000
    assert sent.times(best) == 1.0


def test_a_clock_in_the_system_prompt_costs_all_that_follows() -> None:
    """The bound pays for the clock alone."""
    history = [f"Message {number}. " * 20 for number in range(4)]
    bodies = [
        body(*history[: turn + 1], system=f"{handbook(16)}\nIt is {clock(turn)}.\nBe brief.")
        for turn in range(4)
    ]
    sent, best = measured(bodies, unit="characters"), oracle(bodies, unit="characters")
    assert [left for _, left in best.requests[1:]] == [
        pytest.approx(len("user\x01text\x00") + len(history[turn]), abs=len(clock(0)) + 12)
        for turn in range(1, 4)
    ]
    assert sent.uncached > best.uncached + len(history[0]) + len(history[1])
    assert best.resent == 0, "a clock that changes at each request never stands before anything that stays"


def test_text_of_one_turn_is_sent_again_or_makes_others_be() -> None:
    """A passage lives for two requests of a turn: with the result behind it, one of the two is sent twice."""
    note, result = passage(1), "The result of the tool. " * 3
    bodies = [
        body("Hello", "Hi", "Where is it?", note),
        body("Hello", "Hi", "Where is it?", note, result),
        body("Hello", "Hi", "Where is it?", result, "In Lyon."),
    ]
    best = oracle(bodies, unit="characters")
    assert best.resent == len(result) - len("H"), "a beginning in common with another text may be read"
    shorter = [body("Hello", "Hi", "note"), body("Hello", "Hi", "note", result), body("Hello", "Hi", result)]
    assert oracle(shorter, unit="characters").resent == len("note") - len("H")


def test_members_of_a_team_share_what_they_hear_in_other_roles() -> None:
    said = [f"Remark {number}. " * 30 for number in range(6)]
    bodies = []
    for turn in range(6):
        own = turn % 3
        heard = [
            {"role": "assistant" if at % 3 == own else "user", "content": text}
            for at, text in enumerate(said[:turn])
        ]
        persona = list(personas().values())[own]
        bodies.append(
            {
                "model": "gpt-5.5",
                "messages": [{"role": "system", "content": f"{handbook(16)}\n{persona}"}, *heard],
            }
        )
    alone, team = (oracle(bodies, unit="characters", team=shared) for shared in (False, True))
    assert team.hit_ratio > alone.hit_ratio > measured(bodies, unit="characters").hit_ratio
    assert [read for _, read in team.requests[3:]] <= [len(text) + 150 for text in said[3:]]


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (
            "claude-sonnet-5.5",
            {
                "system": [{"type": "text", "text": handbook(42), "cache_control": {"type": "ephemeral"}}],
                "max_tokens": 9,
            },
        ),
        ("gpt-5.5", {}),
        ("gpt-5.6", {"prompt_cache_options": {"mode": "explicit"}}),
    ],
)
def test_what_was_sent_is_measured_by_the_providers_rules(model: str, fields: Body) -> None:
    """Breakpoints where the provider needs them; in explicit mode without one nothing is cached."""
    system = None if "system" in fields else handbook(42)
    bodies = [{**body("One?", "One.", "Two?", system=system, model=model), **fields} for _ in range(2)]
    found = measured(bodies)
    explicit = fields.get("prompt_cache_options") is not None
    assert found.requests[0][1] == found.requests[0][0]
    assert (found.requests[1][1] == found.requests[1][0]) is explicit
    assert oracle(bodies).hit_ratio == 0.5


def test_models_share_nothing() -> None:
    bodies = [body("Hello", model=name) for name in ("gpt-5.5", "gpt-5.6")]
    assert oracle(bodies).uncached == oracle(bodies).input
    assert measured(bodies, unit="characters").hit_ratio == 0.0
    assert oracle(bodies, model="gpt-5.5").hit_ratio == 0.5


def test_figures_of_nothing() -> None:
    assert oracle([]) == OracleFigures("tokens", 0, 0)
    assert measured([]).hit_ratio == 0.0
    assert measured([]).times(oracle([])) == 1


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(MessageError, match="unit is 'bytes'"):
        oracle([body("Hello")], unit="bytes")  # type: ignore[arg-type]


def test_the_script_is_long_enough_and_says_so() -> None:
    script = standard_script()
    assert script.tokens() > 4_000
    assert len(script.turns) >= 5
    assert script.requests == len(script.replies()) == 10
    assert len({turn.clock for turn in script.turns}) == len({turn.passage for turn in script.turns}) == 6
    assert handbook(9).startswith(handbook(8))
    assert [
        name for name in tools() if name not in {call[0] for turn in script.turns for call in turn.calls}
    ] == [
        "price",
        "hold",
    ]
