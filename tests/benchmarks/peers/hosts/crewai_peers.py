"""CrewAI: a growing list, compacted by ``summarize_messages`` past 85 % of the window, as its executor does."""

import logging

import common
from crewai.llms.base_llm import BaseLLM
from crewai.llms.context_window import CONTEXT_WINDOW_USAGE_RATIO
from crewai.llms.providers.openai.completion import OpenAICompletion

logging.disable()


class Scripted(BaseLLM):
    """Says what a summary says."""

    answer: object = None
    size: int = 0

    def call(self, messages, *args, **kwargs):
        return self.answer(messages)

    async def acall(self, messages, *args, **kwargs):
        return self.answer(messages)

    def get_context_window_size(self):
        return int(self.size * CONTEXT_WINDOW_USAGE_RATIO)


class Executor(common.Peer):
    def __init__(self, system, tools, window, summaries):
        super().__init__(system, tools, window, summaries)
        self.llm = Scripted(model="scripted", answer=summaries, size=window)
        self.client = OpenAICompletion(model="gpt-5.5", api_key="any")
        self.messages, self.held = [], 0

    def add(self, messages):
        self.messages += messages
        self.held += common.length(messages)

    def ask(self, dynamic):
        head = {"role": "system", "content": self.told(dynamic)}
        if self.held > self.llm.get_context_window_size():
            self.llm.summarize_messages(self.messages, [], verbose=False)
            self.held = common.length(self.messages)
        return [head, *self.messages]

    def render(self, prompt):
        return self.client._format_messages(prompt)


common.run({"CrewAI summarize_messages": Executor})
