"""What the contract is told about the plain framework and its adapter."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.plain_adapter.adapter import BufferedModel, PlainHost, fork_loops, with_schemas
from tests.plain_adapter.framework import Loop, Model, Table

from llmbuffer import Message, Session
from llmbuffer.reconcile import Host, persona
from llmbuffer.testing import AdapterExamples, Agent, Group, Setup
from llmbuffer.testing.adapters import CAPABILITIES

CITY = {"type": "object", "additionalProperties": False}
KINDS = {str: "string", int: "integer"}


class PlainAgent(Agent):
    """A loop, driven by the contract."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.seam = getattr(loop.model, "seam", None)

    def say(self, text: str, *, conversation: str = "one") -> str:
        return self.loop.say(text, conversation)

    async def asay(self, text: str, *, conversation: str = "one") -> str:
        return await self.loop.asay(text, conversation)

    async def aclose(self) -> None:
        await self.loop.model.aclose()

    def history(self, *, conversation: str = "one") -> list[Message]:
        return [PlainHost().to_message(item) for item in self.loop.histories[conversation]]

    def offer(self, names: Sequence[str]) -> None:
        self.loop.offered = list(names)

    def redact(self, text: str, *, conversation: str = "one") -> None:
        for item in self.loop.histories[conversation]:
            item["content"] = (item["content"] or "").replace(text, "(redacted)")

    def structured(self, text: str, fields: Mapping[str, type]) -> Mapping[str, Any]:
        properties = {name: {"type": KINDS[kind]} for name, kind in fields.items()}
        schema = {**CITY, "properties": properties, "required": list(fields)}
        asked = {"type": "json_schema", "json_schema": {"name": "Answer", "strict": True, "schema": schema}}
        found: Mapping[str, Any] = json.loads(self.loop.say(text, "one", response_format=asked))
        return found

    def saved(self) -> Any:
        return json.dumps(self.loop.histories)

    def close(self) -> None:
        self.loop.model.close()


class PlainGroup(Group):
    """Agents around a table."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.seam = getattr(table.members[0].model, "seam", None)

    def discuss(self, text: str) -> list[tuple[str, str]]:
        return self.table.discuss(text, "one")

    def close(self) -> None:
        self.table.members[0].model.close()


class PlainExamples(AdapterExamples):
    """The plain framework has everything."""

    capabilities = frozenset(CAPABILITIES)
    served: tuple[tuple[str, str], ...] = (("openai", "gpt-5.5"), ("openai", "gpt-5.6"))
    wrapper: type[BufferedModel] = BufferedModel
    framework: type[Loop] = Loop

    def host(self) -> Host:
        return PlainHost()

    def model(self, url: str, setup: Setup, session: Session | None = None) -> Any:
        model = Model(url, setup.model)
        if setup.mode is None:
            return model
        return self.wrapper(model, mode=setup.mode, session=session or setup.session, policy=setup.policy)

    def loop(self, url: str, setup: Setup, session: Session | None = None) -> Loop:
        return self.framework(
            self.model(url, setup, session),
            system=setup.system,
            tools=setup.tools,
            schemas=with_schemas(setup.tools),
            stream=setup.stream,
        )

    def agent(self, url: str, setup: Setup) -> Agent:
        return PlainAgent(self.loop(url, setup))

    def unreadable(self) -> Any:
        return {"role": "assistant", "content": [{"type": "hologram", "beam": 7}]}

    def restored(self, url: str, setup: Setup, saved: Any) -> Agent:
        loop = self.loop(url, setup)
        loop.histories.update(json.loads(saved))
        return PlainAgent(loop)

    def fan_out(self, url: str, setup: Setup, tasks: Sequence[str]) -> list[Any]:
        assert setup.session is not None
        return list(fork_loops(lambda session: self.loop(url, setup, session), setup.session, tasks))

    def group(self, url: str, setup: Setup, personas: Mapping[str, str]) -> Group:
        model, marked = self.model(url, setup), persona if setup.mode == "team" else str
        systems = {name: f"{setup.instructions()}\n\n{marked(own)}" for name, own in personas.items()}
        if setup.mode == "team":
            for name, system in systems.items():
                model.seam.declare(name, system=system)
        return PlainGroup(
            Table(
                [
                    Loop(model, system=system, tools={}, schemas={}, name=name)
                    for name, system in systems.items()
                ]
            )
        )
