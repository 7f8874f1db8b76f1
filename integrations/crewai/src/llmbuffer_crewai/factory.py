"""Agents, tasks and crews off one shared session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crewai import Agent, Crew, Process, Task
from crewai.llms.base_llm import BaseLLM

from llmbuffer import Session
from llmbuffer.errors import MessageError
from llmbuffer.observing import Observation
from llmbuffer.reconcile import Policy, unmarked
from llmbuffer.seam import Account, Mode

from .choosing import LayoutChoice, Step, choose
from .forking import CrewResults, fork
from .hosting import same, schemas, tool_name
from .layouts import ToolLayout
from .llm import BufferedLLM

__all__ = ["AgentFactory"]


class AgentFactory:
    """Makes agents, tasks and crews whose prompts begin with one shared session.

    ``session`` holds the brief: its system text stands in front of every agent's role, so that the provider reads it from
    its cache for all agents, tasks and kickoffs; messages of its history follow the system text. ``llm`` is what the agents
    use, an LLM of CrewAI's for the session's model. What agents and tasks are told stays the same; the brief goes first,
    then the role (with whatever inputs were put into it), then the task.

    ``layout`` says how prompts begin, see ``LayoutChoice``: ``"own"``, ``"union"``, ``"crewai"``, or ``"auto"``: the one that a
    forecast finds cheapest when a crew is made, with each number of tool calls a task in ``loops`` (default: none, one
    and five). ``mode``,
    ``policy``, ``limit`` and ``on_observe`` are those of ``BufferedLLM``.

    Raises ``MessageError`` where the session speaks another dialect than the LLM, and for an unknown ``layout``.
    """

    def __init__(
        self,
        session: Session,
        *,
        llm: BaseLLM,
        mode: Mode = "buffer",
        layout: str = "auto",
        loops: Sequence[int] = (0, 1, 5),
        policy: Policy | None = None,
        limit: int = 1024,
        on_observe: Callable[[Observation], object] | None = None,
    ) -> None:
        if layout not in ("auto", "crewai", "own", "union"):
            raise MessageError(f"layout is {layout!r}: use 'auto', 'crewai', 'own' or 'union'")
        if not loops or min(loops) < 0:
            raise MessageError(f"loops is {tuple(loops)!r}: give one or more numbers of tool calls a task")
        self._llm = BufferedLLM(
            llm, session=session, mode=mode, policy=policy, limit=limit, on_observe=on_observe
        )
        self._layout, self._loops = layout, tuple(loops)
        self._crew: Any = None
        self._choice = LayoutChoice("own", "own: no crew has been made")

    @property
    def session(self) -> Session:
        """What all prompts begin with."""
        return self._llm.seam.session

    @property
    def llm(self) -> BufferedLLM:
        """The LLM of all agents; for a crew's manager too."""
        return self._llm

    @property
    def choice(self) -> LayoutChoice:
        """The layout of the crew that was made last, and why."""
        return self._choice

    def account(self, *, agent: str | None = None, task: str | None = None) -> Account:
        """What was used by all crews, by an agent, or for a task; see ``BufferedLLM.account``."""
        return self._llm.account(agent=agent, task=task)

    def forget(self, conversation: str, agent: str | None = None) -> bool:
        """Let go of a conversation, or of one agent's part in it; see ``BufferedLLM.forget``."""
        return self._llm.forget(conversation, agent)

    def reset(self) -> None:
        """Let go of all conversations, of what was learned, and of the accounts; agents and crews stay."""
        self._llm.reset()

    # What it makes

    def agent(
        self, role: str, goal: str, backstory: str = "", *, tools: Sequence[Any] = (), **options: Any
    ) -> Any:
        """An ``Agent`` of CrewAI's; ``options`` are its other fields. What all agents share belongs into the session.

        In observe mode, where prompts are not changed, the session's system text goes into the backstory.
        """
        if self._llm.seam.mode == "observe":
            shared = [each.content for each in self.session.context.segments if each.content.strip()]
            backstory = "\n\n".join([*shared, *([backstory] if backstory else [])])
        return Agent(
            role=role, goal=goal, backstory=backstory, tools=list(tools), **{"llm": self._llm, **options}
        )

    def task(self, description: str, expected_output: str, agent: Any = None, **options: Any) -> Any:
        """A ``Task`` of CrewAI's; ``options`` are its other fields. A ``name`` is what ``account`` finds it by."""
        return Task(description=description, expected_output=expected_output, agent=agent, **options)

    def crew(self, agents: Sequence[Any] = (), tasks: Sequence[Any] = (), **options: Any) -> Any:
        """A ``Crew`` of CrewAI's; ``options`` are its other fields. Without ``agents``, those of the tasks.

        The layout is chosen here. A hierarchical crew keeps each agent's own tools, since its manager's differ in any case;
        without ``manager_llm`` or ``manager_agent`` its manager uses this factory's LLM.
        """
        found = list(agents) or _agents(tasks)
        hierarchical = options.get("process") == Process.hierarchical
        if hierarchical and not options.get("manager_agent"):
            options.setdefault("manager_llm", self._llm)
        self._choice, layout = self._chosen(found, tasks, hierarchical=hierarchical)
        self._place(found, layout)
        self._crew = Crew(agents=found, tasks=list(tasks), **options)
        return self._crew

    def fork_crew(
        self,
        inputs: Sequence[Mapping[str, Any]],
        *,
        crew: Any = None,
        limit: int = 8,
        warm: bool = True,
        patience: float = 60.0,
    ) -> CrewResults:
        """Run a copy of ``crew`` (default: the one made last) for each of the ``inputs``, at most ``limit`` at once.

        With ``warm``, the first request goes first and the others are held until it is answered (``patience`` seconds at
        most), so that the shared beginning is written to the provider's cache once; if it fails, the next one leads. Results
        come in the order of the inputs, and a crew that fails costs no other its result. Raises ``MessageError`` if there is
        no crew.
        """
        crew = self._crew if crew is None else crew
        if crew is None:
            raise MessageError("there is no crew to fork: make one with .crew(…), or give crew=…")
        return fork(self._llm, crew, list(inputs), limit=limit, warm=warm, patience=patience)

    # The layout

    def _chosen(
        self, agents: Sequence[Any], tasks: Sequence[Any], *, hierarchical: bool
    ) -> tuple[LayoutChoice, ToolLayout]:
        own = ToolLayout()
        if self._llm.seam.mode == "observe":
            return LayoutChoice("crewai", "crewai: prompts are only observed"), ToolLayout((), "crewai")
        if self._layout in ("own", "crewai"):
            declared: Any = self._layout
            return LayoutChoice(declared, f"{declared}: as declared"), ToolLayout((), declared)
        union = _union([*_tools(agents), *_tools(tasks)])
        if union is None:
            return LayoutChoice("own", "own: tools of one name differ"), own
        if self._layout == "union":
            return LayoutChoice("union", "union: as declared"), ToolLayout(union, "union")
        if hierarchical:
            return LayoutChoice("own", "own: the manager's tools differ from those of all others"), own
        if not self._llm.supports_function_calling():
            return LayoutChoice("own", "own: tools are told as text"), own
        steps = [_step(task) for task in tasks if getattr(task, "agent", None) is not None]
        found = choose(self.session, steps, union, self._loops)
        return found, ToolLayout(union, found.layout)

    def _place(self, agents: Sequence[Any], layout: ToolLayout) -> None:
        """Give the agents that use this factory's LLM the crew's layout of tools."""
        llm = self._llm.variant(layout)
        for agent in agents:
            if isinstance(agent.llm, BufferedLLM) and agent.llm.seam is self._llm.seam:
                agent.llm = llm

    def __repr__(self) -> str:
        return f"AgentFactory({self._llm!r}, layout={self._choice.layout!r})"


def _agents(tasks: Sequence[Any]) -> list[Any]:
    """The agents of the tasks, each once, in their order."""
    found: list[Any] = []
    for task in tasks:
        if task.agent is not None and not any(task.agent is each for each in found):
            found.append(task.agent)
    return found


def _tools(holders: Sequence[Any]) -> list[dict[str, Any]]:
    return [schema for holder in holders for schema in schemas(getattr(holder, "tools", None) or ())]


def _union(tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Each tool once; ``None`` where two of one name differ."""
    found: dict[str, dict[str, Any]] = {}
    for tool in tools:
        if not same(found.setdefault(tool_name(tool), tool), tool):
            return None
    return list(found.values())


def _step(task: Any) -> Step:
    agent = task.agent
    persona = f"You are {agent.role}. {agent.backstory}\nYour personal goal is: {agent.goal}"
    tools = schemas(task.tools or agent.tools or ())
    return Step(agent.role, unmarked(persona), tuple(tools), f"{task.description}\n{task.expected_output}")
