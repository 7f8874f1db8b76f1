"""What every peer program shares; standard library only, since each runs in an environment of its own.

A peer keeps a conversation the way its users do. ``run`` reads one job as a line of JSON from standard input and writes
lines of JSON:

* ``{"do": "script", "scripts": […]}``: for each step of each script what would be sent, each message given once and then by
  its number;
* ``{"do": "time", "sizes": […]}``: time of a turn at so many messages, in units of a reference that is measured beside it;
* ``{"do": "compact", "size": N}``: time of the first request of N messages that do not fit, in the same units;
* ``{"do": "memory", "size": N}``: bytes held at N messages, over the bytes of their text.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import tracemalloc

CHARACTERS = 700
REPEATS = 15
PATIENCE = 300.0  # seconds


def tokens(text):
    """Four characters a token, as everywhere in this comparison."""
    return max(1, len(text) // 4)


def text(index):
    """Text of one message: different in each."""
    return (f"{index}: " + "the parcel left the depot and is on its way to the customer, " * 20)[:CHARACTERS]


def length(messages):
    """Tokens of messages in OpenAI's format."""
    return sum(tokens(json.dumps(message)) for message in messages)


class Summaries:
    """What the model says when it is asked for a summary, and what it was asked."""

    def __init__(self, size):
        self.size, self.asked = size, []

    def __call__(self, messages):
        """About ``size`` tokens, the same for the same request."""
        self.asked.append(messages)
        words = " ".join(str(message.get("content") or "") for message in messages)[-self.size * 4 :]
        return f"Summary {len(self.asked)}. {words}"

    def taken(self):
        """The requests since it was asked last."""
        asked, self.asked = self.asked, []
        return asked


class Peer:
    """One conversation. ``ask`` gives the prompt in the peer's own objects, ``wire`` makes OpenAI's format of it."""

    def __init__(self, system, tools, window, summaries):
        self.system, self.tools, self.window, self.summaries = system, tools, window, summaries

    def add(self, messages):
        """Take in messages in OpenAI's format."""
        raise NotImplementedError

    def ask(self, dynamic):
        """The messages to send; ``dynamic`` is text that changes, which programs put into the system prompt."""
        raise NotImplementedError

    def wire(self, prompt):
        """The prompt as messages in OpenAI's format."""
        return prompt

    def render(self, prompt):
        """The prompt as the framework's own client renders it; what is timed."""
        return self.wire(prompt)

    def told(self, dynamic):
        """The system prompt with what changes at its end."""
        return f"{self.system}\n\n{dynamic}" if dynamic else self.system


def script(make, job, out):
    """Send every step of every script."""
    for each in job["scripts"]:
        summaries = Summaries(job["summary"])
        peer = make(each["system"], each["tools"], job["window"], summaries)
        known = {}

        def number(message, known=known):
            said = json.dumps(message)
            if said not in known:
                known[said] = len(known)
                out({"message": said})
            return known[said]

        out({"script": each["id"]})
        for step in each["steps"]:
            peer.add(step["new"])
            sent = peer.wire(peer.ask(step["dynamic"]))
            asides = [[number(message) for message in asked] for asked in summaries.taken()]
            out({"asides": asides, "sent": [number(message) for message in sent]})
        out({"end": each["id"]})


def reference():
    """Seconds of a fixed piece of work: JSON of 100 messages."""
    messages = [{"role": "user", "content": text(index)} for index in range(100)]
    start = time.perf_counter()
    for _ in range(5):
        json.dumps(messages)
    return (time.perf_counter() - start) / 5


def timed(make, sizes, out):
    """A turn at each size: a message of the user's comes, the prompt is made in OpenAI's format, the reply comes.

    A size that would take minutes, by the one before it, is left out: ``units`` is ``null``.
    """
    took, before = 0.0, 1
    for size in sizes:
        if took * (size / before) ** 2 > PATIENCE:
            out({"size": size, "units": None})
            continue
        start = time.perf_counter()
        peer = make("You are kind. " * 100, [], 10**9, Summaries(100))
        peer.add([said(index) for index in range(size)])
        peer.render(peer.ask(""))
        took, before = time.perf_counter() - start, size
        found, units = [], []
        gc.disable()
        for turn in range(REPEATS if took < 1 else 2):
            units.append(reference())
            start = time.perf_counter()
            peer.add([{"role": "user", "content": text(size + 2 * turn)}])
            peer.render(peer.ask(""))
            peer.add([{"role": "assistant", "content": text(size + 2 * turn + 1)}])
            found.append(time.perf_counter() - start)
        gc.enable()
        out({"size": size, "units": min(found) / min(units)})


def compacted(make, size, out):
    """The request that makes N messages fit a window of half of them; whatever the peer does for that."""
    found, units = [], []
    for _ in range(5):
        units.append(reference())
        peer = make("You are kind. " * 100, [], size * CHARACTERS // 8, Summaries(100))
        peer.add([said(index) for index in range(size - 1)])
        start = time.perf_counter()
        peer.add([said(0)])
        peer.render(peer.ask(""))
        found.append(time.perf_counter() - start)
    out({"size": size, "units": min(found) / min(units)})


def said(index):
    """A message of a conversation that begins with the user."""
    return {"role": "assistant" if index % 2 else "user", "content": text(index)}


def memory(make, size, out):
    """Bytes that a conversation holds after a request, over those of its texts."""
    gc.collect()
    tracemalloc.start()
    peer = make("You are kind.", [], 10**9, Summaries(100))
    peer.add([said(index) for index in range(size)])
    peer.ask("")
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    out({"size": size, "bytes_over_text": held / (size * CHARACTERS)})


def run(peers):
    """Do the job on standard input for the peer that the command line names."""
    make = peers[sys.argv[1]]
    job = json.loads(sys.stdin.readline())

    def out(value):
        sys.stdout.write(json.dumps(value) + "\n")

    if job["do"] == "script":
        script(make, job, out)
    elif job["do"] == "time":
        timed(make, job["sizes"], out)
    elif job["do"] == "compact":
        compacted(make, job["size"], out)
    else:
        memory(make, job["size"], out)
