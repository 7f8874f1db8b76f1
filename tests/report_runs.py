"""Runs to make reports of: a session with forks, and the log of a server that a faulty program talked to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anthropic
import msgspec

from llmbuffer import Segment, Session, StableContext
from llmbuffer.capture import Recorder
from llmbuffer.simulate import ProviderServer, SimulatedRequest
from llmbuffer.testing import FakeClock, reply
from llmbuffer.tokens import EstimateCounter

RULES = "You track parcels, and you are brief and kind. " * 400
SECRET = "the number is 4711"
HOSTILE = (
    "</script><script>document.title='pwned'</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202egpj.exe\u2066",
    "👩\u200d🚀 ' & <b>",
    "عربي",
    "half \ud83d",
)
NOON = 1_790_000_000.0  # an instant, in seconds since the epoch


def desk(requests: int = 12, forks: int = 3, names: tuple[str, ...] = ()) -> list[Session]:
    """A session that pauses once for too long, and its forks; the last one forks again."""
    clock = FakeClock(NOON)
    segments = [
        Segment("policy", RULES, level="global"),
        Segment("shop", "We sell tea. " * 300),
    ]
    track = {"name": "track", "description": "Finds a parcel. " * 60, "parameters": {"type": "object"}}
    context = StableContext("gpt-5.6", segments, tools=[track])
    session = Session(context, clock=clock, tokens=EstimateCounter())
    session.name = "coordinator"
    for number in range(requests):
        clock.advance(4000 if number == 8 else 40)
        dynamic = {"retrieved": f"{SECRET}. " * 40 * (1 + number % 3)}
        reply(session.request(f"Where is parcel {number}? " * (20 * (number % 4 + 1)), dynamic=dynamic))
    made = [session]
    for number in range(forks):
        name = names[number] if number < len(names) else f"worker-{number}"
        fork = session.fork(name)
        for _ in range(2):
            clock.advance(10)
            reply(fork.request("Do your part. " * 20))
        made.append(fork)
    if forks:
        made.append(made[-1].fork("deeper"))
        clock.advance(10)
        reply(made[-1].request("And yours."))
    return made


def tools() -> list[dict[str, Any]]:
    return [
        {"name": name, "description": "Does things. " * 60, "input_schema": {"type": "object"}}
        for name in ("track", "refund", "mail")
    ]


def faulty_bodies(requests: int = 24) -> list[tuple[float, dict[str, Any]]]:
    """What a program sends whose system text changes (request 9), whose tools move (13), that pauses (17) and trims (21)."""
    mark = {"cache_control": {"type": "ephemeral"}}
    found, at = [], NOON
    told: list[dict[str, Any]] = []
    for number in range(1, requests + 1):
        at += 900 if number == 17 else 30
        told.append({"role": "user", "content": f"{SECRET} {number}: " + "word " * 120})
        system = RULES if number != 9 else f"It is 2026-11-22 10:30:09. {RULES}"
        shown = told[6:] if number >= 21 else told
        last = {"role": "user", "content": [{"type": "text", "text": shown[-1]["content"], **mark}]}
        given = tools() if number < 13 else [*reversed(tools())]
        body = {
            "model": "claude-sonnet-5.5",
            "max_tokens": 100,
            "system": [{"type": "text", "text": system, **mark}],
            "tools": given,
            "messages": [*shown[:-1], last],
        }
        found.append((at, body))
        told.append({"role": "assistant", "content": "It is under way."})
    return found


def served_log(path: Path, *, bodies: bool = True, requests: int = 24, recorded: Path | None = None) -> None:
    """The log of a simulated provider that got the faulty bodies from an SDK; ``recorded`` is a log of the SDK's side."""
    clock = FakeClock(NOON)

    def write(request: SimulatedRequest) -> None:
        with path.open("ab") as log:
            log.write(msgspec.json.encode(request) + b"\n")

    with ProviderServer(
        clock=clock, keep_bodies=bodies, counter=EstimateCounter(), on_request=write
    ) as server:
        options: dict[str, Any] = {}
        if recorded is not None:
            options["http_client"] = Recorder(recorded, clock=clock).http_client()
        url = server.anthropic_url
        with anthropic.Anthropic(base_url=url, api_key="k", max_retries=0, **options) as client:
            for at, body in faulty_bodies(requests):
                clock.now = at
                client.messages.create(**body)
