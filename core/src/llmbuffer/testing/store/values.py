"""The promises about single values, and about leases."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ...errors import StoreError
from ...messages import Message, ToolResult
from ...store import Compiled, Store
from ..fakes import FakeClock
from .examples import StoreExamples, saved

__all__ = ["KeepsValues", "Leases"]


class KeepsValues(StoreExamples):
    """Values with a time to live, weights and pins; compiled contexts; originals."""

    def test_values_live_as_long_as_they_were_given(self, store: Store, clock: FakeClock) -> None:
        """By the store's clock."""
        store.put("short", b"1", ttl=10)
        store.put("long", b"2")
        store.put("long", b"\x00\xff")
        clock.advance(9)
        assert (store.get("short"), store.get("long"), store.get("none")) == (b"1", b"\x00\xff", None)
        clock.advance(1)
        assert (store.get("short"), store.keys()) == (None, ("long",))
        assert store.gc().records == 1
        assert (store.drop("long"), store.drop("long"), store.get("long")) == (True, False, None)

    def test_whole_numbers_are_taken_where_fractions_are(self, store: Store) -> None:
        """As a price and as a time to live, whatever number a back end gives back."""
        store.put("key", b"1", price=2, ttl=10, pinned=True)
        assert store.get("key") == b"1"
        store.pin("key", False)
        assert store.get("key") == b"1"

    def test_what_does_not_fit_pushes_out_what_was_used_longest_ago(self, store: Store) -> None:
        """But not what is pinned; and nothing that is heavier than the whole."""
        for key in ("pinned", "old", "used"):
            store.put(key, b"x" * 300, pinned=key == "pinned")
        assert store.get("used")
        store.put("new", b"x", weight=400)
        assert set(store.keys()) == {"pinned", "used", "new"}
        with pytest.raises(StoreError, match="1001"):
            store.put("huge", b"x" * 1_001)
        with pytest.raises(StoreError, match="unpin"):
            store.put("large", b"x" * 800)
        assert set(store.keys()) == {"pinned", "used", "new"}
        store.pin("pinned", False)
        store.put("large", b"x" * 1_000)
        assert store.keys() == ("large",)

    @pytest.mark.parametrize("bad", [{"ttl": 0}, {"ttl": float("nan")}, {"weight": -1}])
    def test_nonsense_is_refused(self, store: Store, bad: dict[str, Any]) -> None:
        """And nothing is stored."""
        with pytest.raises(StoreError, match="'key'"):
            store.put("key", b"", **bad)
        assert store.get("key") is None

    def test_a_compiled_context_tells_whether_it_is_warm(self, store: Store, clock: FakeClock) -> None:
        """By the provider's handle and the time of the last request."""
        compiled = Compiled("b2:1", "gemini", b"d", b"[]", b"{}", 5_000, "cachedContents/1", ttl=60.0)
        store.warmed("b2:1", "gemini")
        store.put_compiled(compiled)
        store.warmed("b2:1", "gemini")
        found = store.compiled("b2:1", "gemini")
        assert found == msgspec.structs.replace(compiled, warm_at=1_000.0)
        assert (found.warm(1_059), found.warm(1_060)) == (True, False)
        assert store.compiled("b2:1", "anthropic") is None

    def test_originals_stay_until_their_session_goes(self, store: Store) -> None:
        """Of another session, longer."""
        message = Message("tool", [ToolResult("c1", "a long result")])
        for session_id in ("s1", "s2"):
            saved(store, "a", session_id=session_id)
            store.keep_original(session_id, "c1", message)
        store.forget("s1")
        assert (store.original("s1", "c1"), store.original("s2", "c1")) == (None, message)


class Leases(StoreExamples):
    """A name that one holds at a time."""

    def test_one_holds_a_name_at_a_time(self, store: Store, clock: FakeClock) -> None:
        """Until it lets go, or its time is over."""
        assert store.take("warm", "ann", 10)
        assert not store.take("warm", "bob", 10)
        assert store.holder("warm") == ("warm", "ann", 1_010.0)
        clock.advance(5)
        assert store.renew("warm", "ann", 10)
        assert not store.renew("warm", "bob", 10)
        clock.advance(9)
        assert not store.take("warm", "bob", 10)
        clock.advance(1)
        assert store.holder("warm") is None
        assert store.take("warm", "bob", 10)
        assert not store.renew("warm", "ann", 10)
        assert not store.release("warm", "ann")
        assert store.release("warm", "bob")
        assert store.take("warm", "ann", 10)
