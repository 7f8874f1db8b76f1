"""What a test class tells the contract about its adapter, and the agent that the promises are tried on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ...messages import Message
from ...reconcile import Host, Policy
from ...seam import Seam
from ...session import Session

if TYPE_CHECKING:
    import pytest

__all__ = ["CAPABILITIES", "AdapterExamples", "Agent", "Group", "Setup"]

CAPABILITIES = {
    "tools": "the framework runs tools that the model calls (Setup.tools)",
    "parallel-tools": "a reply may call several tools at once",
    "hides": "tools may be taken away for the next calls (Agent.offer)",
    "async": "the framework can be awaited (Agent.asay)",
    "stream": "the framework can ask for streams (Setup.stream)",
    "dynamic": "the system prompt may be made anew at each call or turn (Setup.system is a callable)",
    "edits": "users may take text out of the conversation that is kept (Agent.redact)",
    "conversations": "one wrapped model serves several conversations (conversation=)",
    "structured": "a reply may be asked for as an object of a schema (Agent.structured)",
    "persistence": "a conversation can be kept and gone on with elsewhere (Agent.saved, restored)",
    "fan-out": "N tasks can go off one shared session (fan_out)",
    "team": "several agents may talk in one conversation (group)",
}


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """How an agent is to be made.

    ``mode`` is the adapter's; with ``None`` the framework is used alone, as its users write it, without llmbuffer. ``model``
    is served at the URL in the format ``wire`` (``openai`` is Chat Completions). ``system`` is the agent's system prompt, or
    a callable that gives it anew: then the framework asks it at each call of the model, or at least at each turn (see
    ``instructions``). ``tools`` are typed functions with docstrings, by name. ``session`` and ``policy`` go to the adapter as
    its users give them; without one, its default. With ``stream`` the model is asked for streams.

    >>> Setup(system=lambda: "It is 12:00.").instructions(), Setup(system="Be kind.").dynamic
    ('It is 12:00.', False)
    """

    mode: Literal["observe", "buffer", "team"] | None = "buffer"
    wire: str = "openai"
    model: str = "gpt-5.5"
    system: str | Callable[[], str] = "You are kind."
    tools: Mapping[str, Callable[..., str]] = {}
    session: Session | None = None
    policy: Policy | None = None
    stream: bool = False

    @property
    def dynamic(self) -> bool:
        """Whether the system prompt is made anew."""
        return callable(self.system)

    def instructions(self) -> str:
        """The system prompt of now."""
        return self.system if isinstance(self.system, str) else self.system()


class Agent:
    """One agent of the framework, driven as its users drive it. A test class of an adapter writes a subclass.

    ``say`` and ``history`` are needed; each of the others where ``AdapterExamples.capabilities`` names it.
    """

    seam: Seam | None = None
    """The adapter's seam; ``None`` without llmbuffer (mode ``None``)."""

    def say(self, text: str, *, conversation: str = "one") -> str:
        """One turn of the user, tool loop included; the text of the final reply. Raises what the framework raises."""
        raise NotImplementedError(f"{type(self).__name__}.say: one turn of the user")

    async def asay(self, text: str, *, conversation: str = "one") -> str:
        """The same through the framework's asynchronous way."""
        raise NotImplementedError(f"{type(self).__name__}.asay: needed for the capability 'async'")

    async def aclose(self) -> None:
        """Awaited behind the last ``asay``, in its event loop: close what belongs to that loop."""

    def history(self, *, conversation: str = "one") -> list[Message]:
        """What the framework itself keeps of a conversation, read by the adapter's host; without the system prompt."""
        raise NotImplementedError(f"{type(self).__name__}.history: what the framework keeps")

    def offer(self, names: Sequence[str]) -> None:
        """From the next turn on, the framework sends these of its tools and no others; it could still run them all."""
        raise NotImplementedError(f"{type(self).__name__}.offer: needed for the capability 'hides'")

    def redact(self, text: str, *, conversation: str = "one") -> None:
        """Take a text out of what the framework keeps: replace it by ``(redacted)``, as its users would."""
        raise NotImplementedError(f"{type(self).__name__}.redact: needed for the capability 'edits'")

    def structured(self, text: str, fields: Mapping[str, type]) -> Mapping[str, Any]:
        """One call for an object with these fields (``{"city": str}``), asked for as the framework does by default.

        ``pydantic.create_model("Answer", **{name: (kind, ...) for name, kind in fields.items()})`` makes a class of them.
        """
        raise NotImplementedError(f"{type(self).__name__}.structured: needed for the capability 'structured'")

    def saved(self) -> Any:
        """All that is needed to go on elsewhere, see ``AdapterExamples.restored``."""
        raise NotImplementedError(f"{type(self).__name__}.saved: needed for the capability 'persistence'")

    def close(self) -> None:
        """Called at the end of a test: close clients and loops."""


class Group:
    """Several agents of the framework in one conversation, each speaking once in the order given."""

    seam: Seam | None = None

    def discuss(self, text: str) -> list[tuple[str, str]]:
        """One round: the user's text, then each member speaks; (member, what it said) in order.

        Called again, the conversation goes on.
        """
        raise NotImplementedError(f"{type(self).__name__}.discuss: needed for the capability 'team'")

    def close(self) -> None:
        """Called at the end of a test."""


class AdapterExamples:
    """What a test class tells about its adapter.

    ``capabilities`` are names out of ``llmbuffer.testing.adapter.examples.CAPABILITIES``: promises that need another one are
    skipped. ``served`` are pairs of wire format and model that the promises about the wire are tried with, ``marked`` the
    one with breakpoints that forks are tried with (``None``: none). ``scaffolding`` are patterns of text that the framework
    itself puts around what users and tools say and does not keep (``'Current Task: '``); most have none.
    """

    capabilities: frozenset[str] = frozenset()
    served: tuple[tuple[str, str], ...] = (("openai", "gpt-5.5"),)
    marked: tuple[str, str] | None = ("openai", "gpt-5.6")
    scaffolding: tuple[str, ...] = ()

    def host(self) -> Host:
        """The adapter's host: how it reads the framework's messages."""
        raise NotImplementedError(f"{type(self).__name__}.host: the adapter's Host")

    def agent(self, url: str, setup: Setup) -> Agent:
        """A new agent whose model is at ``url`` (the SDK's base URL; any key), with no retries by SDK or framework."""
        raise NotImplementedError(f"{type(self).__name__}.agent: an agent made as the setup says")

    def unreadable(self) -> Any:
        """A message of the framework's own with content that has no place in a ``Message``; by default there is none."""
        return None

    def restored(self, url: str, setup: Setup, saved: Any) -> Agent:
        """An agent in another process, say, that goes on with what ``Agent.saved`` gave: a wrapper and a seam of its own."""
        raise NotImplementedError(f"{type(self).__name__}.restored: needed for the capability 'persistence'")

    def fan_out(self, url: str, setup: Setup, tasks: Sequence[str]) -> list[Any]:
        """Each task by a fork off ``setup.session`` through the adapter's own means (``fork_…``), side by side.

        What comes of each, in order; where a task failed, its exception. ``setup.session`` is a new one of the model, and
        ``setup.system`` what all forks share.
        """
        raise NotImplementedError(f"{type(self).__name__}.fan_out: needed for the capability 'fan-out'")

    def group(self, url: str, setup: Setup, personas: Mapping[str, str]) -> Group:
        """Members that speak in this order, each with ``setup.instructions()``, a blank line and its persona as system prompt.

        In ``team`` mode the persona is wrapped in ``persona(…)`` and the members are declared, where the adapter has a way to;
        the policy then is one that always shares.
        """
        raise NotImplementedError(f"{type(self).__name__}.group: needed for the capability 'team'")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test with each model if it has an argument ``model``."""
        if "model" in metafunc.fixturenames:
            metafunc.parametrize("model", self.served, ids=[name for _, name in self.served])
