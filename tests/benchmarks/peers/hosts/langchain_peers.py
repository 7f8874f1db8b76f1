"""LangChain: ``trim_messages``, and its middlewares for summaries and context editing, called as an agent calls them."""

import common
from langchain.agents.middleware import ClearToolUsesEdit, SummarizationMiddleware
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    RemoveMessage,
    SystemMessage,
    convert_to_messages,
    convert_to_openai_messages,
    trim_messages,
)
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_openai.chat_models.base import _convert_message_to_dict


class Chat(common.Peer):
    def __init__(self, system, tools, window, summaries):
        super().__init__(system, tools, window, summaries)
        self.messages = []

    def add(self, messages):
        self.messages += convert_to_messages(messages)

    def wire(self, prompt):
        return [_convert_message_to_dict(message) for message in prompt]


class Trimmed(Chat):
    def ask(self, dynamic):
        return trim_messages(
            [SystemMessage(self.told(dynamic)), *self.messages],
            max_tokens=self.window,
            token_counter=count_tokens_approximately,
            strategy="last",
            include_system=True,
            allow_partial=False,
            start_on=("human", "ai"),
        )


class Model(BaseChatModel):
    """Says what a summary says."""

    answer: object

    @property
    def _llm_type(self):
        return "scripted"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        told = self.answer(convert_to_openai_messages(messages))
        return ChatResult(generations=[ChatGeneration(message=AIMessage(told))])


class Summarized(Chat):
    def __init__(self, system, tools, window, summaries):
        super().__init__(system, tools, window, summaries)
        self.middleware = SummarizationMiddleware(
            Model(answer=summaries),
            trigger=("tokens", window),
            keep=("messages", 20),
            trim_tokens_to_summarize=None,
        )

    def ask(self, dynamic):
        update = self.middleware.before_model({"messages": self.messages}, None)
        if update is not None:
            self.messages = [each for each in update["messages"] if not isinstance(each, RemoveMessage)]
        return [SystemMessage(self.told(dynamic)), *self.messages]


class Edited(Chat):
    def __init__(self, system, tools, window, summaries):
        super().__init__(system, tools, window, summaries)
        self.edit = ClearToolUsesEdit(trigger=window, keep=3)

    def ask(self, dynamic):
        edited = [each.model_copy() for each in self.messages]
        self.edit.apply(edited, count_tokens=count_tokens_approximately)
        return [SystemMessage(self.told(dynamic)), *edited]


common.run(
    {
        "LangChain trim_messages": Trimmed,
        "LangChain SummarizationMiddleware": Summarized,
        "LangChain ContextEditing": Edited,
    }
)
