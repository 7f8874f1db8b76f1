"""The other ``llmbuffer``, 0.3.0 of the public index: its manager with its own place for changing text."""

import common

from llmbuffer import PromptManager


class Prompted(common.Peer):
    def __init__(self, system, tools, window, summaries):
        super().__init__(system, tools, window, summaries)
        self.manager = PromptManager(
            static_system_prompt=system, transition_mode="agent_cycle", max_tokens=window
        )

    def add(self, messages):
        self.manager.append_many(messages)

    def ask(self, dynamic):
        return self.manager.build_messages(dynamic_system_prompt=dynamic or None)


common.run({"llmbuffer 0.3.0": Prompted})
