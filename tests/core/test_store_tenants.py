"""Tenants of one store, and principals who may do some things with it; `llmbuffer.testing.stores` has the rest of the promises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbuffer import Message, Session, StableContext
from llmbuffer.errors import CapabilityError, ConflictError, CorruptStoreError, StoreError
from llmbuffer.store import Compiled, Store, new_key, open_store
from llmbuffer.store.rights import CAPABILITIES, Rights
from llmbuffer.store.rotation import Rotation
from llmbuffer.store.safe import HOME
from llmbuffer.store.transfer import Transfer
from llmbuffer.store.upkeep import Upkeep
from llmbuffer.store.values import Values
from llmbuffer.testing.store.examples import CONTEXT, saved
from llmbuffer.testing.store.privacy import tell

KEY = new_key()


@pytest.fixture
def store() -> Iterator[Store]:
    with open_store("memory:", key=KEY) as store:
        saved(store, "a", "b")
        store.put("v", b"1")
        yield store


# What each act needs

ACTS: dict[str, tuple[str, Callable[[Store], Any]]] = {
    "load": ("read", lambda store: store.load("s1")),
    "messages": ("read", lambda store: store.messages("s1")),
    "context": ("read", lambda store: store.context("b2:1")),
    "get": ("read", lambda store: store.get("v")),
    "keys": ("read", lambda store: store.keys()),
    "compiled": ("read", lambda store: store.compiled("b2:1", "gemini")),
    "holder": ("read", lambda store: store.holder("l")),
    "original": ("read", lambda store: store.original("s1", "m")),
    "sessions": ("read", lambda store: store.sessions()),
    "stats": ("read", lambda store: store.stats()),
    "put": ("write", lambda store: store.put("v", b"2")),
    "drop": ("write", lambda store: store.drop("none")),
    "pin": ("write", lambda store: store.pin("v")),
    "put_compiled": ("write", lambda store: store.put_compiled(Compiled("b2:1", "gemini"))),
    "warmed": ("write", lambda store: store.warmed("b2:1", "gemini")),
    "take": ("write", lambda store: store.take("l", "ann", 5)),
    "renew": ("write", lambda store: store.renew("l", "ann", 5)),
    "release": ("write", lambda store: store.release("l", "ann")),
    "keep_original": ("write", lambda store: store.keep_original("s1", "m", Message("user", "x"))),
    "save": ("write", lambda store: Session(CONTEXT, store=store).save()),
    "gc": ("admin", lambda store: store.gc()),
    "vacuum": ("admin", lambda store: store.vacuum()),
    "verify": ("admin", lambda store: store.verify()),
    "export": ("admin", lambda store: store.export(plain=True)),
    "import_": ("admin", lambda store: store.import_(list(store.export(plain=True)))),
    "tenants": ("admin", lambda store: store.tenants()),
    "rotate": ("admin", lambda store: store.rotate()),
    "forget": ("admin", lambda store: store.forget("s1")),
}


@pytest.mark.parametrize("act", ACTS)
def test_an_act_needs_its_capability_and_no_other(store: Store, act: str) -> None:
    needed, do = ACTS[act]
    others = set(CAPABILITIES) - {needed}
    with pytest.raises(CapabilityError, match=f"'ann' has '{min(others)}'"):
        do(store.for_principal("ann", others))
    do(store.for_principal("ann", [needed]))


def test_every_public_act_asks_for_a_capability() -> None:
    """Whoever adds a method says what it needs, or builds it on those that do."""
    guarded = {
        name
        for part in (Store, Values, Upkeep, Transfer, Rotation)
        for name, method in vars(part).items()
        if not name.startswith("_") and callable(method)
    } - {"for_principal"}
    assert {name for name in guarded if not hasattr(getattr(Store, name), "capabilities")} == set()
    assert guarded >= set(ACTS)
    assert {name: getattr(Store, name).capabilities for name in ACTS} == {
        name: ("write", "fork") if name == "save" else (needed,) for name, (needed, _) in ACTS.items()
    }


def test_nobody_grants_what_he_does_not_have(store: Store) -> None:
    reader = store.for_principal("ann", ["read"])
    with pytest.raises(CapabilityError, match="granting 'write' needs 'write', and 'ann' has 'read'"):
        reader.for_principal("bob", ["read", "write"])
    with pytest.raises(CapabilityError, match=r"unknown capabilities \['delete'\]"):
        store.for_principal("ann", ["delete"])
    nobody = reader.for_principal("bob", [])
    with pytest.raises(CapabilityError, match="'bob' has none"):
        nobody.get("v")
    assert nobody.rights == Rights("bob", frozenset())
    assert reader.for_principal("eve", "read").get("v") == b"1"


def test_a_store_is_opened_for_a_principal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    with open_store(url, principal="ann", capabilities=["read", "write"]) as store:
        saved(store, "a")
        with pytest.raises(CapabilityError, match="forget needs 'admin'"):
            store.forget("s1")
        assert store.sessions()[0].owner == "ann"


# Forks


def test_who_may_fork_goes_on_with_his_fork_and_with_nothing_else(store: Store) -> None:
    ann, bob = (store.for_principal(name, ["read", "fork"]) for name in ("ann", "bob"))
    session = Session.load(ann, "s1")
    session.append(Message("user", "not mine to say"))
    with pytest.raises(CapabilityError, match="saving session 's1'"):
        session.save()
    fork = session.fork()
    fork.save()
    again = Session.load(ann, fork.id)
    again.append(Message("user", "and more"))
    again.save()
    assert len(store.messages(fork.id)) == 4
    other = Session.load(bob, fork.id)
    other.append(Message("user", "not bob's"))
    with pytest.raises(CapabilityError, match="which 'ann' made"):
        other.save()
    other.fork().save()
    with pytest.raises(CapabilityError, match="is no fork"):
        Session(CONTEXT, store=ann).save()
    assert [each.text for each in store.messages("s1")] == ["a", "b"]
    assert sorted(str(each.owner) for each in store.sessions()) == ["None", "ann", "bob"]
    assert store.verify() == ()


def test_a_fork_does_not_take_the_id_of_another_session(store: Store) -> None:
    saved(store, "mine", session_id="s2")
    ann = store.for_principal("ann", ["read", "fork"])
    fork = Session.load(ann, "s1").fork()
    fork._id = "s2"
    with pytest.raises(ConflictError):
        fork.save()
    assert store.messages("s2")[0].text == "mine"


def test_whoever_writes_next_leaves_the_owner(store: Store) -> None:
    ann = store.for_principal("ann", ["read", "fork"])
    fork = Session.load(ann, "s1").fork()
    fork.save()
    session = Session.load(store, fork.id)
    session.append(Message("user", "from somebody who may write"))
    session.save()
    assert {each.owner for each in store.sessions() if each.id == fork.id} == {"ann"}
    lines = list(store.export(plain=True))
    with open_store("memory:") as other:
        other.import_(lines)
        assert {each.owner for each in other.sessions()} == {None, "ann"}


def test_a_view_is_the_same_store(store: Store) -> None:
    """What was loaded through one is saved through the other, and values count once."""
    session = Session.load(store.for_principal("ann", ["read"]), "s1")
    session.append(Message("user", "c"))
    store.save(session, session._saved)
    assert len(store.messages("s1")) == 3
    store.for_principal("bob", ["write"]).put("w", b"2")
    assert store.keys() == ("v", "w")


# Tenants


@pytest.mark.parametrize("key", [None, KEY])
def test_tenants_share_a_file_and_know_nothing_of_it(tmp_path: Path, key: str | None) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    with open_store(url, key=key, tenant="acme") as acme, open_store(url, key=key, tenant="globex") as globex:
        with open_store(url, key=key) as whole:
            for store in (acme, whole):
                tell(store, "acme")
            assert (globex.sessions(), whole.stats().sessions) == ((), 1)
            assert globex.stats() == (0, 0, 0, 0, 0, 0)
            assert whole.stats().file_bytes > 0
        assert len({store.space for store in (acme, globex, whole)}) == 3
        assert b"acme" not in acme.space
    with open_store(url, key=key, tenant="acme") as again:
        assert len(again.messages("session-of-agnes")) == 3


def test_a_space_tells_its_tenant_to_nobody_without_the_key() -> None:
    """Two stores call the same tenant by two names."""
    with (
        open_store("memory:", key=KEY, tenant="acme") as one,
        open_store("memory:", key=KEY, tenant="acme") as two,
    ):
        assert one.space != two.space
        assert one.routing_key("r") != two.routing_key("r")
        assert one.envelope.name("session", "s1") != two.envelope.name("session", "s1")


def test_a_session_that_moves_to_another_tenant_has_another_routing_key() -> None:
    with open_store("memory:", tenant="one") as one, open_store("memory:", tenant="two") as two:
        session = Session(StableContext("gpt-5.5"), store=one, session_id="s1", routing_key="support")
        session.save()
        two.import_(one.export())
        moved = [Session.load(store, "s1") for store in (one, two)]
        sent = {each.request("x").body["prompt_cache_key"] for each in moved}
        assert len({*sent, "support"}) == 3


def test_without_a_tenant_the_routing_key_is_the_given_one() -> None:
    for key in (None, KEY):
        with open_store("memory:", key=key) as store:
            session = Session(StableContext("gpt-5.5"), store=store, routing_key="support")
            assert session.request("x").body["prompt_cache_key"] == "support"


def test_a_damaged_marker_stops_tenants_and_not_the_rest(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    with open_store(url) as store:
        saved(store, "a")
        marker = store.backend.get(HOME, "seal", b"marker")
        assert marker is not None
        store.backend.put(HOME, marker._replace(body=marker.body[:-1] + bytes([marker.body[-1] ^ 1])))
    with open_store(url) as store:
        assert store.messages("s1")
        assert [each.what for each in store.verify()] == ["key"]
    with pytest.raises(StoreError, match="the marker of the store is damaged"):
        open_store(url, tenant="acme")


def test_a_file_that_is_only_read_needs_no_marker(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    with open_store(url) as store:
        saved(store, "a")
        store.backend.drop(HOME, "seal", b"marker")
    with open_store(f"{url}?mode=ro") as store:
        assert store.messages("s1")
        assert store.verify() == ()
    with open_store(url, key=None) as store:
        assert store.backend.get(HOME, "seal", b"marker") is not None


def test_a_changed_weight_is_found_and_does_not_stop_others(store: Store) -> None:
    """In a sealed store weight and price are sealed, too: what was changed is not counted."""
    found = store.backend.get(b"", "value", store.envelope.name("value", "v"))
    assert found is not None
    assert (found.weight, found.price, store.shown(found).weight) == (0, None, 1)
    store.backend.put(b"", found._replace(owner=b"nonsense"))
    with open_store("memory:", key=KEY) as other:
        other.put("v", b"1")
        foreign = other.backend.get(b"", "value", other.envelope.name("value", "v"))
        assert foreign is not None
        store.backend.put(b"", found._replace(key=b"k" * 24, owner=foreign.owner))
    store.put("w", b"2")
    assert len(store.verify()) == 2
    with pytest.raises(CorruptStoreError):
        store.get("v")
    assert store.get("w") == b"2"
