"""What the agents of a workflow will hand to their LLM."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.async_utils import asyncio_run

__all__ = ["declared"]


def declared(workflow: Any, llm: Any) -> Iterator[tuple[str, str, list[Any]]]:
    """Name, system prompt and tools of each agent that calls its LLM with both, the tools as this LLM sends them."""
    for agent, tools in _agents(workflow):
        if not isinstance(agent, FunctionAgent):
            continue
        parallel = agent.allow_parallel_tool_calls
        sent = (
            llm._prepare_chat_with_tools(tools, chat_history=[], allow_parallel_tool_calls=parallel)
            if tools
            else {}
        )
        yield agent.name, agent.system_prompt or "", list(sent.get("tools") or ())


def _agents(workflow: Any) -> Iterable[tuple[Any, list[Any]]]:
    if isinstance(workflow, AgentWorkflow):
        for name, agent in workflow.agents.items():
            yield agent, list(asyncio_run(workflow.get_tools(name)))
        return
    for agent in workflow if isinstance(workflow, list | tuple) else [workflow]:
        yield agent, list(asyncio_run(agent.get_tools()))
