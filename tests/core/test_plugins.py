"""Plugins: both doors, and errors that name the distribution."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any

import pytest

from llmbuffer import Session, StableContext, get_dialect, open_store
from llmbuffer.cli.plugins import plugins as command
from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.errors import PluginError, UnknownDialectError
from llmbuffer.frameworks import fits
from llmbuffer.hookspecs import Register, hookimpl
from llmbuffer.plugins import Plugins, get_adapter, plugins
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


def gone() -> Any:
    raise ImportError("no module named 'gone'")


class Raising:
    @hookimpl
    def register_dialects(self, register: Register) -> None:
        register("half", OpenAIChat)
        raise RuntimeError("a hook that fails")


class Typo:
    @hookimpl
    def register_dialect(self, register: Register) -> None: ...


class Adapter:
    FRAMEWORKS: Any = (("pytest", ">=7"),)
    CAPABILITIES: Any = ("observe", "buffer")

    def __init__(self, factory: Callable[[], Any] = lambda: "the module", **told: Any) -> None:
        self.factory = factory
        vars(self).update(told)

    @hookimpl
    def register_adapters(self, register: Register) -> None:
        register("framed", self.factory)


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plugins]:
    """Plugins that take the place of those of the process."""

    def made(*entries: Any) -> Plugins:
        found = Plugins(entry_points=points(*entries))
        monkeypatch.setattr("llmbuffer.plugins.plugins", found)
        return found

    return made


@pytest.mark.parametrize(
    ("load", "told"),
    [
        (gone, r"'broken-package' \(2.0\) cannot be loaded: ImportError: no module named 'gone'; update"),
        (Raising, r"'broken-package' \(2.0\) fails in register_dialects: RuntimeError: a hook that fails"),
        (Typo, r"'broken-package' \(2.0\) implements the unknown hooks \['register_dialect'\]"),
        (
            lambda: Adapter(FRAMEWORKS=(("pytest", "at least 7"),)),
            r"register_adapters: FRAMEWORKS are pairs of",
        ),
        (lambda: Adapter(CAPABILITIES="observe"), r"register_adapters: FRAMEWORKS are pairs of"),
    ],
)
def test_a_broken_plugin_costs_the_others_nothing(
    sound: Callable[..., Plugins], load: Callable[[], Any], told: str
) -> None:
    """Those who ask for it by its name, or by its distribution's, are told; everybody else does not notice."""
    found = sound(entry("broken", load), entry("mine", Mine))
    assert get_dialect("openai").name == get_dialect("mine").name == "openai"
    assert [each.distribution for each in found.broken] == ["broken-package"]
    for name in ("broken", "broken-package"):
        with pytest.raises(PluginError, match=told):
            get_dialect(name)
    assert "half" not in found.offers("dialects"), "what a hook offered before it failed is not used"
    with pytest.raises(UnknownDialectError):
        get_dialect("another")


def test_a_store_of_a_broken_plugin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Plugins(entry_points=points(entry("etcd", gone)))
    monkeypatch.setattr("llmbuffer.store.opening.plugins", found)
    with pytest.raises(PluginError, match="'etcd-package'"):
        open_store("etcd://localhost")
    open_store("memory:").close()


def test_an_adapter_is_found_by_name(sound: Callable[..., Plugins]) -> None:
    offer = sound(entry("framed", Adapter)).offers("adapters")["framed"]
    assert get_adapter("framed") == "the module"
    assert offer.capabilities == ("observe", "buffer")
    assert [(each.name, each.problem) for each in offer.found()] == [("pytest", None)]
    with pytest.raises(PluginError, match=r"unknown adapter 'frmed': found \['framed'\]"):
        get_adapter("frmed")


@pytest.mark.parametrize(
    ("frameworks", "told"),
    [
        (
            (("no-such-framework", ">=1.6,<2"),),
            "no-such-framework is not installed, needed is >=1.6,<2: pip install 'no-such-framework>=1.6,<2'$",
        ),
        ((("pytest", "<1"),), r"pytest \d[\d.]* is installed, needed is <1: pip install 'pytest<1'$"),
    ],
)
def test_a_framework_that_is_missing_or_too_old_is_one_line(
    sound: Callable[..., Plugins], frameworks: Any, told: str
) -> None:
    """Found without importing anything; the error names the distribution of the adapter."""
    sound(entry("framed", lambda: Adapter(gone, FRAMEWORKS=frameworks)))
    with pytest.raises(
        PluginError, match=r"^adapter 'framed' of distribution 'framed-package' \(2.0\): .*" + told
    ):
        get_adapter("framed")


def test_one_framework_of_several_is_enough(sound: Callable[..., Plugins]) -> None:
    frameworks = (("no-such-framework", ">=1"), ("pytest", ">=7"))
    found = sound(entry("framed", lambda: Adapter(FRAMEWORKS=frameworks)))
    assert [each.name for each in found.offers("adapters")["framed"].found()] == ["pytest"]
    assert get_adapter("framed") == "the module"


def test_an_adapter_that_cannot_be_imported_names_its_distribution(sound: Callable[..., Plugins]) -> None:
    sound(entry("framed", lambda: Adapter(gone)))
    with pytest.raises(
        PluginError, match=r"'framed-package' \(2.0\) cannot be loaded: ImportError: no module"
    ):
        get_adapter("framed")


@pytest.mark.parametrize(
    ("version", "needed", "holds"),
    [
        ("1.7.2", ">=1.6,<2", True),
        ("2.0.0rc1", ">=1.6,<2", False),
        ("0.14", "==0.14.0", True),
        ("0.14.1", "!=0.14.1", False),
        ("1.10", "> 1.9 , <= 1.10", True),
        ("1!2.0", ">=2", True),
        ("unknown", ">=0.1", False),
        ("3", "", True),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, needed: str, holds: bool) -> None:
    assert fits(version, needed) is holds


def test_the_command_lists_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows for what works, a line for what does not, and the exit code 0."""
    old = Adapter(FRAMEWORKS=(("pytest", "<1"),))
    found = Plugins(entry_points=points(entry("broken", gone), entry("framed", lambda: old)))
    monkeypatch.setattr("llmbuffer.cli.plugins.installed", found)
    command(as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in document["errors"]] == ["broken", "framed"]
    (adapter,) = document["adapters"]
    assert (adapter["capabilities"], adapter["frameworks"][0]["needed"]) == (["observe", "buffer"], "<1")
    command(as_json=False)
    shown = capsys.readouterr()
    assert "framed-package" in shown.out
    assert [line.split()[:3] for line in shown.err.splitlines()] == [
        ["llmbuffer:", "plugin", "'broken'"],
        ["llmbuffer:", "adapter", "'framed'"],
    ]


@pytest.mark.parametrize("name", ["langchain", "crewai", "autogen", "llamaindex"])
def test_our_adapters_name_the_versions_that_they_depend_on(name: str) -> None:
    """What the plugin says is what the distribution says; classic AutoGen has three, and the adapter takes older ones too."""
    root = Path(__file__).parents[2] / "integrations" / name
    told = run_path(str(root / "src" / f"llmbuffer_{name}" / "plugin.py"))["FRAMEWORKS"]
    lines = (root / "pyproject.toml").read_text("utf-8")
    needed = dict(re.findall(r'"([\w-]+)(?:\[[\w,-]+\])?([<>=][^"]*)"', lines))
    needed |= {"autogen": ">=0.9,<0.15", "ag2": ">=0.9,<1", "pyautogen": ">=0.9,<0.10"}
    assert {each: needed[each] for each, _ in told} == dict(told)


@pytest.mark.parametrize("name", ["langchain", "crewai", "autogen", "llamaindex"])
def test_our_adapters_tell_their_frameworks(name: str) -> None:
    """Where they are installed: without loading the framework."""
    offer = plugins.offers("adapters").get(name)
    if offer is None:
        pytest.skip(f"llmbuffer-{name} is not installed here")
    assert offer.frameworks
    assert {"observe", "buffer"} <= set(offer.capabilities)
    assert offer.distribution == f"llmbuffer-{name}"


def test_an_unknown_hook_is_rejected() -> None:
    with pytest.raises(PluginError, match=r"^distribution 'typo-package' .*register_dialect.*known are"):
        Plugins(entry_points=points()).register(Typo(), distribution="typo-package")


def test_one_name_offered_twice_names_both(sound: Callable[..., Plugins]) -> None:
    found = sound(entry("one", Mine), entry("two", Mine))
    assert "mine" not in found.offers("dialects")
    with pytest.raises(
        PluginError, match=r"'two-package'.* is offered by 'one-package' too|'one-package'.*'two-pack"
    ):
        get_dialect("mine")


def test_nobody_takes_the_place_of_what_is_built_in(sound: Callable[..., Plugins]) -> None:
    class Usurper:
        @hookimpl
        def register_dialects(self, register: Register) -> None:
            register("openai", lambda: "another one")

    found = sound(entry("usurper", Usurper))
    assert get_dialect("openai").name == "openai"
    assert [(each.name, each.distribution) for each in found.broken] == [("openai", "usurper-package")]


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
