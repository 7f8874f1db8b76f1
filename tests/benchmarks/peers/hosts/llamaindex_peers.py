"""LlamaIndex: ``ChatMemoryBuffer`` and ``Memory``, with the system prompt in front as its chat engines have it."""

import asyncio

import common
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory import ChatMemoryBuffer, Memory
from llama_index.llms.openai.utils import to_openai_message_dicts


def words(text):
    """A tokenizer of four characters a token."""
    return [text[start : start + 4] for start in range(0, len(text), 4)]


def message_of(message):
    """A message of ours as one of theirs; what was on the wire goes along."""
    rest = {key: value for key, value in message.items() if key not in ("role", "content")}
    return ChatMessage(role=message["role"], content=message.get("content") or "", additional_kwargs=rest)


def wire_of(message):
    content = message.content
    if not content and message.additional_kwargs.get("tool_calls"):
        content = None
    return {"role": message.role.value, "content": content, **message.additional_kwargs}


class Buffer(common.Peer):
    def __init__(self, system, tools, window, summaries):
        super().__init__(system, tools, window, summaries)
        self.memory = ChatMemoryBuffer.from_defaults(token_limit=window, tokenizer_fn=words)

    def add(self, messages):
        for message in messages:
            self.memory.put(message_of(message))

    def ask(self, dynamic):
        told = self.told(dynamic)
        return [told, *self.memory.get(initial_token_count=len(told) // 4)]

    def wire(self, prompt):
        return [{"role": "system", "content": prompt[0]}, *(wire_of(message) for message in prompt[1:])]

    def render(self, prompt):
        return to_openai_message_dicts([ChatMessage(role="system", content=prompt[0]), *prompt[1:]])


class Flushed(Buffer):
    def __init__(self, system, tools, window, summaries):
        common.Peer.__init__(self, system, tools, window, summaries)
        self.memory = Memory.from_defaults(
            token_limit=window,
            chat_history_token_ratio=0.9,
            token_flush_size=max(1, window // 10),
            tokenizer_fn=words,
        )
        self.loop = asyncio.new_event_loop()

    def add(self, messages):
        self.loop.run_until_complete(self.memory.aput_messages([message_of(message) for message in messages]))

    def ask(self, dynamic):
        return [self.told(dynamic), *self.loop.run_until_complete(self.memory.aget())]


common.run({"LlamaIndex ChatMemoryBuffer": Buffer, "LlamaIndex Memory": Flushed})
