"""AutoGen: a classic agent's ``TransformMessages``, and the buffered context of agentchat."""

import asyncio

import common
from autogen.agentchat.contrib.capabilities.transform_messages import TransformMessages
from autogen.agentchat.contrib.capabilities.transforms import MessageHistoryLimiter
from autogen_core.model_context import BufferedChatCompletionContext
from autogen_core.models import AssistantMessage, SystemMessage, UserMessage
from autogen_ext.models.openai._openai_client import to_oai_type

KEPT = 60  # messages: about what the window holds


class Limited(common.Peer):
    def __init__(self, system, tools, window, summaries):
        super().__init__(system, tools, window, summaries)
        limit = MessageHistoryLimiter(max_messages=KEPT if window < 10**6 else window)
        self.messages, self.limit = [], TransformMessages(transforms=[limit], verbose=False)

    def add(self, messages):
        self.messages += messages

    def ask(self, dynamic):
        kept = self.limit._transform_messages(self.messages)  # what it hooks into each reply
        while kept and kept[0]["role"] == "tool":
            kept = kept[1:]
        return [{"role": "system", "content": self.told(dynamic)}, *kept]


class Buffered(common.Peer):
    """Its messages carry what was said; tool traffic as text, since roles other than these have no place in the script."""

    def __init__(self, system, tools, window, summaries):
        super().__init__(system, tools, window, summaries)
        self.context = BufferedChatCompletionContext(KEPT if window < 10**6 else window)
        self.loop = asyncio.new_event_loop()
        self.wires = {}

    def add(self, messages):
        for message in messages:
            kind = AssistantMessage if message["role"] == "assistant" else UserMessage
            mine = kind(content=str(message.get("content") or ""), source=message["role"])
            self.wires[id(mine)] = message
            self.loop.run_until_complete(self.context.add_message(mine))

    def ask(self, dynamic):
        return [self.told(dynamic), *self.loop.run_until_complete(self.context.get_messages())]

    def wire(self, prompt):
        kept = [self.wires[id(message)] for message in prompt[1:]]
        while kept and kept[0]["role"] == "tool":
            kept = kept[1:]
        return [{"role": "system", "content": prompt[0]}, *kept]

    def render(self, prompt):
        messages = [SystemMessage(content=prompt[0]), *prompt[1:]]
        return [each for message in messages for each in to_oai_type(message)]


common.run({"AutoGen MessageHistoryLimiter": Limited, "AutoGen BufferedChatCompletionContext": Buffered})
