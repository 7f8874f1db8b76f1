"""Plugins: both doors, and errors that name the distribution."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest

from llmbuffer import Session, StableContext, get_dialect
from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.errors import PluginError, UnknownDialectError
from llmbuffer.hookspecs import Register, hookimpl
from llmbuffer.plugins import Plugins
from llmbuffer.rules import CacheRules


class Mine:
    @hookimpl
    def register_dialects(self, register: Register) -> None:
        register("mine", OpenAIChat)


def entry(name: str, load: Callable[[], Any]) -> Any:
    return SimpleNamespace(name=name, load=load, dist=SimpleNamespace(name=f"{name}-package", version="2.0"))


def points(*entries: Any) -> Callable[[], list[metadata.EntryPoint]]:
    return lambda: list(entries)


def test_a_plugin_registered_by_hand_is_found_and_can_be_taken_back() -> None:
    found, plugin = Plugins(entry_points=points()), Mine()
    found.register(plugin)
    assert found.offers("dialects")["mine"].factory is OpenAIChat
    with pytest.raises(PluginError, match="already"):
        found.register(plugin)
    found.unregister(plugin)
    assert "mine" not in found.offers("dialects")


def test_an_installed_plugin_tells_its_distribution() -> None:
    offer = Plugins(entry_points=points(entry("mine", Mine))).offers("dialects")["mine"]
    assert (offer.distribution, offer.version) == ("mine-package", "2.0")


def test_loading_is_lazy_and_happens_once() -> None:
    loads: list[str] = []

    def load() -> Any:
        loads.append("x")
        return Mine()

    found = Plugins(entry_points=points(entry("mine", load)))
    assert loads == []
    found.offers("dialects")
    found.offers("stores")
    assert loads == ["x"]


def test_a_broken_plugin_names_its_distribution() -> None:
    def load() -> Any:
        raise ImportError("no module named 'gone'")

    with pytest.raises(PluginError, match=r"'broken-package' \(2.0\) cannot be loaded: ImportError"):
        Plugins(entry_points=points(entry("broken", load))).offers("dialects")


def test_an_unknown_hook_is_rejected() -> None:
    class Typo:
        @hookimpl
        def register_dialect(self, register: Register) -> None: ...

    with pytest.raises(PluginError, match=r"register_dialect.*known are"):
        Plugins(entry_points=points()).register(Typo(), distribution="typo-package")


def test_one_name_offered_twice_names_both() -> None:
    found = Plugins(entry_points=points(entry("one", Mine), entry("two", Mine)))
    with pytest.raises(
        PluginError, match=r"'two-package' and by 'one-package'|'one-package' and by 'two-package'"
    ):
        found.offers("dialects")


def test_an_unknown_dialect_lists_what_was_found() -> None:
    with pytest.raises(UnknownDialectError, match=r"'opnai': found \['anthropic', .*'openai'"):
        get_dialect("opnai")


def test_the_other_door_is_to_pass_the_object() -> None:
    rules = CacheRules(name="my-endpoint", match="prefix", min_tokens=16, step=16)
    session = Session(StableContext("my-model", "Be kind."), dialect=OpenAIChat(rules))
    assert session.dialect.rules is rules
    assert "unsupported-model" not in session.request("hi").forecast.warnings


def test_a_model_without_rules_falls_back_and_says_so() -> None:
    session = Session(StableContext("my-model", "Be kind."))
    request = session.request("hi")
    assert "unsupported-model" in request.forecast.warnings
    assert request.forecast.cost is None
    assert set(request.body) == {"model", "messages"}
