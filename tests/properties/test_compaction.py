"""Some hundred of the generated sessions of ``compactions.py``, and that its checks can fail."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.properties import compactions

from llmbuffer import Message, ToolCall, ToolResult
from llmbuffer.compaction import CompactionWarning, guard, original_id

CHUNK = 25


@pytest.fixture(autouse=True)
def _unwarned() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompactionWarning)
        yield


@pytest.mark.parametrize("chunk", range(8))
def test_whatever_the_hooks_and_the_session(chunk: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(chunk * CHUNK, (chunk + 1) * CHUNK):
        compactions.check(seed, counts)
    assert counts["sessions"] == CHUNK
    assert counts["compactions"] > 20
    assert counts["messages replaced"] > 100
    assert counts["markers followed"] > 50


BAD = (compactions.drop_all, compactions.drop_calls, compactions.drop_first, compactions.drop_newest)


@pytest.mark.parametrize("hook", BAD, ids=lambda hook: str(hook.__name__))
def test_the_checks_notice_a_guard_that_sleeps(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbuffer.compaction.choosing.check_history", lambda *_, **__: None)
    monkeypatch.setattr(compactions, "hooks_of", lambda _: [hook])
    assert any(map(_broken, range(12)))


def _broken(seed: int) -> bool:
    try:
        compactions.check(seed, Counter())
    except AssertionError:
        return True
    return False


def test_equal_messages_have_equal_ids_and_others_have_not() -> None:
    call = Message("assistant", [ToolCall("1", "a", "{}")])
    one, two = (Message("tool", [ToolResult("1", text)]) for text in ("x", "y"))
    assert original_id(one) == original_id([Message("tool", [ToolResult("1", "x")])])
    names = {original_id(each) for each in (one, two, [one, two], [two, one], [call, one])}
    assert len(names) == 5


def test_a_session_without_anything_to_keep() -> None:
    kept = guard.Kept([])
    assert guard.check_history(kept, [], before_tokens=1, after_tokens=0) is None
    assert kept.newest == ()
