"""This llmbuffer: a session that is asked for each request, with its own compaction."""

import common

from llmbuffer import (
    Compaction,
    ElideToolResults,
    Message,
    Session,
    StableContext,
    Summarizer,
    Truncator,
    Usage,
)
from llmbuffer.tokens import EstimateCounter


class Buffered(common.Peer):
    def __init__(self, system, tools, window, summaries):
        super().__init__(system, tools, window, summaries)
        hooks = [ElideToolResults(), Summarizer(lambda messages: "A summary."), Truncator()]
        self.session = Session(
            StableContext("gpt-5.5", system, tools),
            tokens=EstimateCounter(),
            compaction=Compaction(window, hooks=hooks) if window < 10**7 else None,
        )
        self.asked = None

    def add(self, messages):
        if self.asked is not None and len(messages) == 1 and messages[0]["role"] == "assistant":
            self.asked.observe(Usage(100, 10), Message("assistant", messages[0]["content"]))
            self.asked = None
        else:
            self.session.append(messages)

    def ask(self, dynamic):
        self.asked = self.session.request(None, {"now": dynamic} if dynamic else None)
        return self.asked.body["messages"]


common.run({"llmbuffer": Buffered})
