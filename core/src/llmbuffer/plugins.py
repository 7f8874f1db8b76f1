"""Finding dialects, adapters and stores by name: built-in ones, and those of installed distributions.

Plugins are loaded once, when a name is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from threading import RLock
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pluggy

from . import hookspecs
from .errors import PluginError, UnknownDialectError
from .frameworks import Framework, fits, installed
from .hookspecs import hookimpl
from .rules import Dialect

if TYPE_CHECKING:
    from importlib import metadata

__all__ = ["Broken", "Offer", "Plugins", "get_adapter", "get_dialect", "plugins"]

GROUP = "llmbuffer"
KINDS = ("dialects", "adapters", "stores")
_OWN_ADAPTERS = ("autogen", "crewai", "langchain", "llamaindex")


class Offer(msgspec.Struct, frozen=True):
    """What a plugin offers: a name, its factory, and the distribution it came with.

    Of an adapter also the ``frameworks`` that it serves, pairs of a distribution and its versions, and its ``capabilities``:
    the ``FRAMEWORKS`` and ``CAPABILITIES`` of the plugin.

    >>> Offer("mine", dict, "my-package", "1.0").distribution
    'my-package'
    """

    name: str
    factory: Callable[[], Any]
    distribution: str
    version: str
    frameworks: tuple[tuple[str, str], ...] = ()
    capabilities: tuple[str, ...] = ()

    def found(self) -> list[Framework]:
        """The frameworks that are installed, looked up without importing them; all that are named where none is."""
        return installed(self.frameworks)

    @property
    def problem(self) -> str | None:
        """One line, if no framework is installed that an adapter can use; ``None`` where one fits, or none is named."""
        problems = [each.problem for each in self.found()]
        if not problems or None in problems:
            return None
        told = "; ".join(filter(None, problems))
        way = " or ".join(f"'{name}{needed}'" for name, needed in self.frameworks)
        return f"adapter {self.name!r} of distribution {self.distribution!r} ({self.version}): {told}: pip install {way}"


class Broken(msgspec.Struct, frozen=True):
    """A plugin that cannot be used, or a name that two plugins offer, and why.

    >>> Broken("mine", "my-package", "1.0", "cannot be loaded: ImportError: gone").message
    "plugin 'mine' of distribution 'my-package' (1.0) cannot be loaded: ImportError: gone; update or uninstall it"
    """

    name: str
    distribution: str
    version: str
    problem: str

    @property
    def message(self) -> str:
        """One line for people."""
        return (
            f"plugin {self.name!r} of distribution {self.distribution!r} ({self.version}) {self.problem}; "
            "update or uninstall it"
        )


# The built-in dialects: their module and class, imported when the name is first asked for.
_DIALECTS = {
    "openai": "openai_chat.OpenAIChat",
    "openai-responses": "openai_responses.OpenAIResponses",
    "anthropic": "anthropic.Anthropic",
    "gemini": "gemini.Gemini",
    "deepseek": "deepseek.DeepSeek",
    "llamacpp": "llamacpp.LlamaCpp",
    "vllm": "vllm.Vllm",
}

# The built-in stores, by the scheme of their URL: what opens one, imported when the scheme is first asked for.
_STORES = {
    "memory": "memory.open_memory",
    "sqlite": "sqlite.open_sqlite",
    **dict.fromkeys(("redis", "rediss", "unix", "valkey", "valkeys"), "redis.open_redis"),
    **dict.fromkeys(("postgresql", "postgres"), "postgres.open_postgres"),
}


class _BuiltIn:
    @hookimpl
    def register_dialects(self, register: hookspecs.Register) -> None:
        for name, place in _DIALECTS.items():
            register(name, partial(_made, place))

    @hookimpl
    def register_stores(self, register: hookspecs.Register) -> None:
        for scheme, place in _STORES.items():
            register(scheme, partial(_found, "store", place))


def _made(place: str) -> Any:
    return _found("dialects", place)()


def _found(room: str, place: str) -> Any:
    module, _, name = place.partition(".")
    return getattr(import_module(f"{__package__}.{room}.{module}"), name)


class Plugins:
    """The plugins of one process. ``load`` is called by every look-up.

    A plugin that is broken costs the others nothing: it is told by ``broken``, and by ``find`` to those who ask for it.

    >>> found = Plugins()
    >>> {"anthropic", "openai"} <= found.offers("dialects").keys()
    True
    """

    def __init__(self, *, entry_points: Callable[[], list[metadata.EntryPoint]] | None = None) -> None:
        self._manager = pluggy.PluginManager(GROUP)
        self._manager.add_hookspecs(hookspecs)
        self._entry_points = entry_points if entry_points is not None else _entry_points
        self._offers: dict[str, dict[str, Offer]] | None = None
        self._lock = RLock()
        self._origins: dict[int, tuple[str, str, str]] = {}
        self._unloaded: list[Broken] = []
        self._refused: list[Broken] = []

    def register(
        self, plugin: object, *, distribution: str = "(registered by hand)", version: str = ""
    ) -> None:
        """Add a plugin object by hand; what entry points do for installed ones. Raises ``PluginError`` on nonsense."""
        with self._lock:
            if self._manager.is_registered(plugin):
                raise PluginError(f"plugin {plugin!r} is registered already")
            problem = _unknown_hooks(plugin)
            if problem:
                raise PluginError(f"distribution {distribution!r} {problem}")
            self._register(plugin, type(plugin).__name__, distribution, version)
            self._offers = None

    def unregister(self, plugin: object) -> None:
        """Take back a plugin that was registered by hand."""
        with self._lock:
            self._manager.unregister(plugin)
            self._offers = None

    def offers(self, kind: str) -> dict[str, Offer]:
        """Everything of one kind (``dialects``, ``adapters``, ``stores``), by name, but for what is broken."""
        with self._lock:
            if self._offers is None:
                self._load()
                self._refused = []
                self._offers = {each: self._collect(each) for each in KINDS}
            return dict(self._offers[kind])

    @property
    def broken(self) -> tuple[Broken, ...]:
        """The plugins that cannot be used, and names that two distributions offer."""
        self.offers(KINDS[0])
        return (*self._unloaded, *self._refused)

    def find(self, kind: str, name: str) -> Offer | None:
        """The offer with this name, ``None`` where nobody has one. Raises ``PluginError`` where who has it is broken."""
        offer = self.offers(kind).get(name)
        if offer is None:
            for each in self.broken:
                if name in (each.name, each.distribution):
                    raise PluginError(each.message)
        return offer

    def _load(self) -> None:
        if self._manager.has_plugin("built-in"):
            return
        self._manager.register(_BuiltIn(), "built-in")
        for entry_point in self._entry_points():
            name, dist = entry_point.name, entry_point.dist
            origin = ("(unknown)", "") if dist is None else (dist.name, dist.version)
            try:
                plugin = entry_point.load()
                problem = _unknown_hooks(plugin)
                if problem:
                    self._unloaded.append(Broken(name, *origin, problem))
                elif not self._manager.is_registered(plugin):
                    self._register(plugin, name, *origin)
            except Exception as error:  # noqa: BLE001 - a plugin may raise anything at import
                self._unloaded.append(Broken(name, *origin, f"cannot be loaded: {_told(error)}"))

    def _register(self, plugin: object, name: str, distribution: str, version: str) -> None:
        self._manager.register(plugin)
        self._origins[id(plugin)] = (name, distribution, version)

    def _collect(self, kind: str) -> dict[str, Offer]:
        found: dict[str, Offer] = {}
        taken: set[str] = set()
        hook = getattr(self._manager.hook, f"register_{kind}")
        built_in = (GROUP, GROUP, _own_version())
        for implementation in sorted(hook.get_hookimpls(), key=lambda each: id(each.plugin) in self._origins):
            name, distribution, version = self._origins.get(id(implementation.plugin), built_in)
            offered: dict[str, Offer] = {}
            try:
                more = _declared(implementation.plugin) if kind == "adapters" else ((), ())
                implementation.function(register=_register_into(offered, (distribution, version), more))
            except Exception as error:  # noqa: BLE001 - a plugin's hook may raise anything
                problem = f"fails in register_{kind}: {_told(error)}"
                self._refused.append(Broken(name, distribution, version, problem))
                continue
            for each in offered.values():
                if each.name in found or each.name in taken:
                    self._refused.append(_twice(kind, each, found.get(each.name)))
                    if each.name in found and found[each.name].distribution != GROUP:
                        taken.add(each.name)
                        del found[each.name]
                else:
                    found[each.name] = each
        return found


def _unknown_hooks(plugin: object) -> str | None:
    unknown = [name for name in dir(plugin) if name.startswith("register_") and not hasattr(hookspecs, name)]
    known = [name for name in dir(hookspecs) if name.startswith("register_")]
    return f"implements the unknown hooks {unknown}; known are {known}" if unknown else None


def _register_into(
    offered: dict[str, Offer], origin: tuple[str, str], more: tuple[tuple[Any, ...], tuple[str, ...]]
) -> hookspecs.Register:
    def register(name: str, factory: Callable[[], Any]) -> None:
        if name in offered:
            raise PluginError(f"the name {name!r} is offered twice")
        offered[name] = Offer(name, factory, origin[0], origin[1], *more)

    return register


def _twice(kind: str, offer: Offer, other: Offer | None) -> Broken:
    besides = "others" if other is None else f"{other.distribution!r}"
    return Broken(
        offer.name,
        offer.distribution,
        offer.version,
        f"offers a name of {kind} that is offered by {besides} too",
    )


def _declared(plugin: object) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """What an adapter's plugin tells of its frameworks and capabilities. Raises ``PluginError`` for another shape."""
    told = getattr(plugin, "FRAMEWORKS", ()), getattr(plugin, "CAPABILITIES", ())
    try:
        frameworks, capabilities = msgspec.convert(told, tuple[tuple[tuple[str, str], ...], tuple[str, ...]])
        for _, needed in frameworks:
            fits("0", needed)
    except (msgspec.ValidationError, ValueError) as error:
        raise PluginError(
            f"FRAMEWORKS are pairs of a distribution and its versions, CAPABILITIES are names: {error}"
        ) from None
    return frameworks, capabilities


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, PluginError) else f"{type(error).__name__}: {error}"


def _entry_points() -> list[metadata.EntryPoint]:
    from importlib import metadata  # a quarter of the time that importing llmbuffer may take

    return sorted(metadata.entry_points(group=GROUP), key=lambda entry_point: entry_point.name)


def _own_version() -> str:
    from importlib import metadata

    try:
        return metadata.version("llmbuffer")
    except metadata.PackageNotFoundError:  # imported from a source tree that is not installed
        return ""


plugins = Plugins()


def get_dialect(name: str) -> Dialect:
    """The dialect with this name.

    Raises ``UnknownDialectError``, listing what was found, and ``PluginError`` where the plugin of this name is broken.

    >>> get_dialect("anthropic").name
    'anthropic'
    """
    offer = plugins.find("dialects", name)
    if offer is None:
        raise UnknownDialectError(
            f"unknown dialect {name!r}: found {sorted(plugins.offers('dialects'))}; install the distribution that brings "
            "it, or pass a Dialect object"
        )
    return cast(Dialect, offer.factory())


def get_adapter(name: str) -> Any:
    """The module of the adapter with this name: ``get_adapter("langchain").BufferedChatModel``.

    Raises ``PluginError`` where there is none, where its plugin is broken, and where its framework is missing or does not
    fit; the message is one line that names the distribution.
    """
    offer = plugins.find("adapters", name)
    if offer is None:
        found = sorted(plugins.offers("adapters"))
        way = (
            f"pip install 'llmbuffer[{name}]>=1'"
            if name in _OWN_ADAPTERS
            else "install the distribution that brings it"
        )
        raise PluginError(f"unknown adapter {name!r}: found {found}; {way}")
    if offer.problem is not None:
        raise PluginError(offer.problem)
    try:
        return offer.factory()
    except ImportError as error:
        told = f"adapter {name!r} of distribution {offer.distribution!r} ({offer.version}) cannot be loaded"
        raise PluginError(f"{told}: {_told(error)}") from error
