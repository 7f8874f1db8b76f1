"""The adapter: a wrapper of the framework's model, built on a seam; this is all that one needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from tests.plain_adapter.framework import Call, Loop, Message, Model, Said

from llmbuffer import Session, Usage
from llmbuffer.reconcile import DictHost, Plan, PlanMark, Policy
from llmbuffer.seam import Mode, Seam


class PlainHost(DictHost):
    """The framework's messages are mappings in OpenAI's format; ``name`` says who spoke."""

    def speaker(self, item: Any, /) -> str | None:
        return item.get("name") if item.get("role") == "assistant" else None


class BufferedModel:
    """Stands in for a ``Model`` and keeps its prompts cacheable."""

    def __init__(
        self,
        model: Model,
        *,
        mode: Mode = "buffer",
        session: Session | None = None,
        policy: Policy | None = None,
    ) -> None:
        self._model = model
        self.seam = Seam(PlainHost(), session=session, model=model.name, mode=mode, policy=policy)
        self._plans: dict[str, Any] = {}

    def complete(self, call: Call) -> Said:
        ask, sent = self._planned(call)
        return self._observed(ask, self._model.complete(sent))

    async def acomplete(self, call: Call) -> Said:
        ask, sent = self._planned(call)
        return self._observed(ask, await self._model.acomplete(sent))

    def _planned(self, call: Call) -> tuple[Any, Call]:
        ask = self.seam.call(
            messages=call.messages,
            tools=call.tools,
            params=call.params,
            conversation=call.conversation,
            member=call.member,
        )
        self._plans[call.conversation] = ask
        asked = {"stream_options": {"include_usage": True}} if call.stream else {}
        sent = applied(call, ask.plan) if ask.applies else call
        return ask, msgspec.structs.replace(sent, params={**sent.params, **asked})

    def _observed(self, ask: Any, said: Said) -> Said:
        ask.observe(message=said.message, usage=usage_of(said.usage))
        return said

    def refusal(self, name: str, conversation: str) -> str | None:
        refusal: str | None = self._plans[conversation].refusal(name)
        return refusal

    def close(self) -> None:
        self._model.close()

    async def aclose(self) -> None:
        await self._model.aclose()


def usage_of(usage: Any) -> Usage | None:
    """The SDK's counts; none where the provider sent none."""
    if usage is None:
        return None
    details = usage.prompt_tokens_details
    written = 0 if details is None else getattr(details, "cache_write_tokens", None) or 0
    return Usage(
        usage.prompt_tokens, usage.completion_tokens, (details and details.cached_tokens) or 0, written
    )


def applied(call: Call, plan: Plan) -> Call:
    """The call as the plan says: its messages and tools, the tail, breakpoints, further arguments."""
    messages: list[Message] = list(plan.messages)
    behind: int | None = None
    if plan.tail:
        behind = plan.tail.index
        texts = [{"type": "text", "text": text} for text in plan.tail.texts]
        if plan.tail.apart:
            behind += 1
            messages.insert(behind, {"role": plan.tail.role, "content": texts})
        else:
            messages[behind] = {
                **messages[behind],
                "content": [*_parts(messages[behind]["content"]), *texts],
            }
    for mark in plan.marks:
        _mark(messages, mark, behind, 0 if plan.tail.apart else len(plan.tail.texts))
    return msgspec.structs.replace(
        call, messages=messages, tools=list(plan.tools), params={**call.params, **plan.arguments}
    )


def _parts(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())


def _mark(messages: list[Message], mark: PlanMark, behind: int | None, added: int) -> None:
    index = behind if mark.section == "tail" else mark.index
    if index is None or mark.section == "tools":  # OpenAI's tools carry no breakpoints
        return
    if mark.section == "messages" and behind is not None and index == behind:
        part = mark.part - added
    else:
        part = mark.part
    parts = _parts(messages[index]["content"])
    if len(parts) >= -part:
        parts[part] = {**parts[part], "prompt_cache_breakpoint": {"mode": "explicit"}}
        messages[index] = {**messages[index], "content": parts}


def fork_loops(
    loop: Callable[[Session], Loop], session: Session, tasks: Sequence[str]
) -> list[str | Exception]:
    """Each task by a loop of its own off one session; the first one warms the cache for the others."""

    def run(task: str) -> str | Exception:
        made = loop(session.fork(task[:20]))
        try:
            return made.say(task, "forked")
        except Exception as error:  # noqa: BLE001 - one that fails costs no other its result
            return error
        finally:
            made.model.close()

    first = [run(task) for task in tasks[:1]]
    with ThreadPoolExecutor(max_workers=8) as pool:
        return [*first, *pool.map(run, tasks[1:])]


def with_schemas(tools: Mapping[str, Callable[..., str]]) -> dict[str, dict[str, Any]]:
    """The schema of each tool, by name."""
    from llmbuffer.testing.scripts import schema_of

    return {name: schema_of(function) for name, function in tools.items()}
