"""Faults of every cause, injected into recorded sessions: does `explain` find each, and say where and what it cost?

`python -m tests.properties.faults [FILE …] [--faults N] [--seed N]` prints a table. Without files it takes the recording
that ships with llmbuffer. What a fault costs is asked of a simulated provider, by what it reads with and without it.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

from llmbuffer import Session, StableContext, Usage, get_dialect
from llmbuffer.bodies import Piece, Wire, pieces
from llmbuffer.breaks import CacheBreak
from llmbuffer.breaks.values import at
from llmbuffer.explaining import explain
from llmbuffer.replay import read_recordings, sample_recordings
from llmbuffer.replay.recordings import Recording
from llmbuffer.rules import MARK_FIELDS, CacheRules
from llmbuffer.simulate.exchange import Incoming
from llmbuffer.simulate.provider import Provider
from llmbuffer.simulate.refusals import RefusedError
from llmbuffer.simulate.replies import Reply
from llmbuffer.tokens import EstimateCounter

DIALECTS: tuple[tuple[str, str, Wire], ...] = (
    ("openai", "gpt-5.5", "openai"),
    ("openai", "gpt-5.6", "openai"),
    ("openai", "gpt-4o", "openai"),
    ("openai-responses", "gpt-5.6", "openai-responses"),
    ("anthropic", "claude-sonnet-5.5", "anthropic"),
    ("anthropic", "claude-haiku-4.5", "anthropic"),
    ("gemini", "gemini-3.1-pro", "gemini"),
    ("deepseek", "deepseek-v4-pro", "openai"),
)
COUNTER = EstimateCounter()
CLOCKS = ("2026-11-22 10:30:05", "2026-11-22 10:31:41", "It is 10:30", "It is 11:45")
PARAMS: dict[Wire, dict[str, tuple[Any, Any]]] = {
    "openai": {"reasoning_effort": ("low", "high"), "verbosity": ("low", "high")},
    "openai-responses": {"reasoning": ({"effort": "low"}, {"effort": "high"})},
    "anthropic": {"tool_choice": ({"type": "auto"}, {"type": "none"})},
    "gemini": {},
}


class Case(NamedTuple):
    """Two bodies in a row, as one dialect sends them."""

    dialect: str
    model: str
    wire: Wire
    rules: CacheRules
    before: dict[str, Any]
    after: dict[str, Any]


class Fault(NamedTuple):
    """A fault: what was sent, what would have been sent without it, and what must be found."""

    cause: str
    before: dict[str, Any]
    clean: dict[str, Any]
    after: dict[str, Any]
    path: str | None = None
    offset: int = 0
    seconds: float = 0.0


def cases(recordings: Sequence[Recording], random: Random) -> Iterator[Case]:
    """Requests of recorded sessions that follow each other, through a session of each dialect."""
    while True:
        recording = random.choice(recordings)
        name, model, wire = random.choice(DIALECTS)
        agent = recording.agents[0]
        calls = [call for call in recording.calls if call.agent == 0]
        if len(calls) < 3:
            continue
        history: list[Any] = []
        stop = random.randrange(2, len(calls))
        bodies: list[dict[str, Any]] = []
        context = StableContext(model, agent.system or "Be kind.", list(agent.tools))
        try:
            for call in calls[: stop + 1]:
                del history[call.keep :]
                history += call.new
                if call in calls[stop - 1 : stop + 1]:
                    session = Session(context, name, tokens=COUNTER, session_id="s")
                    session.append(history)
                    bodies.append(copy.deepcopy(session.request().body))
        except Exception:  # noqa: BLE001 - a recording that this dialect cannot carry
            continue
        before, after = bodies[0], bodies[1]
        if at(before, "messages") == [] or calls[stop].keep < calls[stop - 1].keep:
            continue
        yield Case(name, model, wire, get_dialect(name).bind(model).rules, before, after)


def put(body: Any, path: str, value: Any) -> None:
    """Set the value at a path."""
    holder, key = _split(path)
    target = at(body, holder) if holder else body
    target[key] = value


def _split(path: str) -> tuple[str, Any]:
    if path.endswith("]"):
        holder, _, index = path[:-1].rpartition("[")
        return holder, int(index)
    holder, _, key = path.rpartition(".")
    return holder, key


def leaf(body: Any, piece: Piece) -> str | None:
    """The path of the text of a piece."""
    value = at(body, piece.path)
    if isinstance(value, str):
        return piece.path
    return f"{piece.path}.text" if isinstance(value, dict) and isinstance(value.get("text"), str) else None


def shared(case: Case, section: str, kind: str | None = None) -> list[Piece]:
    """The pieces of a section that both requests have."""
    return [
        piece
        for piece in pieces(case.before, case.wire)
        if piece.section == section and (kind is None or kind in piece.kind)
    ]


def texts(case: Case, section: str, least: int = 1) -> list[str]:
    found = (leaf(case.before, piece) for piece in shared(case, section))
    return [path for path in found if path is not None and len(at(case.before, path)) >= least]


def edited(case: Case, random: Random, cause: str, path: str) -> Fault:
    """One word more somewhere in a text."""
    text = at(case.before, path)
    spots = random.choices(range(len(text)), k=20)
    # A line about the current time is told as changing already.
    spot = next((each for each in spots if "urrent" not in line_of(text, each)), 0)
    word = next(mark for mark in ("Zebra ", "Quark ") if mark[0] != text[spot])
    after = copy.deepcopy(case.after)
    put(after, path, text[:spot] + word + text[spot:])
    return Fault(cause, case.before, case.after, after, path, spot)


def line_of(text: str, spot: int) -> str:
    return text[text.rfind("\n", 0, spot) + 1 :].partition("\n")[0]


def both(case: Case, random: Random, cause: str, path: str, old: str, new: str) -> Fault:
    """A text within a text that was another one before."""
    text = at(case.before, path)
    spot = random.choice([0, *(i + 1 for i, letter in enumerate(text) if letter in ". \n")])
    before, clean, after = (copy.deepcopy(body) for body in (case.before, case.after, case.after))
    for body, said in ((before, old), (clean, old), (after, new)):
        put(body, path, f"{text[:spot]}{said} {text[spot:]}")
    offset = next(i for i, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1])
    return Fault(cause, before, clean, after, path, spot + offset)


def system_changed(case: Case, random: Random) -> Fault | None:
    paths = texts(case, "system")
    return edited(case, random, "system-changed", random.choice(paths)) if paths else None


def history_edited(case: Case, random: Random) -> Fault | None:
    paths = texts(case, "messages", 2)[:-1]
    return edited(case, random, "history-edited", random.choice(paths)) if paths else None


def volatile(case: Case, random: Random) -> Fault | None:
    paths = texts(case, random.choice(("system", "messages")))
    choices = [
        CLOCKS[:2],
        CLOCKS[2:],
        (uuid(random), uuid(random)),
        (f"run {random.randrange(10, 50)}", f"run {random.randrange(50, 99)}"),
    ]
    old, new = random.choice(choices)
    return both(case, random, "volatile-in-prefix", random.choice(paths), old, new) if paths else None


def uuid(random: Random) -> str:
    digits = f"{random.getrandbits(128):032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def unordered(case: Case, random: Random) -> Fault | None:
    paths = texts(case, "system")
    words = ["alpha", "beta", "gamma", "delta"]
    old, new = str(words), str(words[::-1])
    return both(case, random, "volatile-in-prefix", random.choice(paths), old, new) if paths else None


def dynamic(case: Case, random: Random) -> Fault | None:
    paths = texts(case, "system")
    old, new = (
        f'<context name="retrieved">\n{word} facts about it\n</context>' for word in ("Some", "Other")
    )
    return both(case, random, "dynamic-in-prefix", random.choice(paths), old, new) if paths else None


def model_changed(case: Case, random: Random) -> Fault | None:
    after = copy.deepcopy(case.after)
    if "model" not in after:
        return None
    after["model"] = "X" + after["model"]
    return Fault("model-changed", case.before, case.after, after, "model", 0)


def tool_places(case: Case) -> list[str]:
    return [piece.path for piece in shared(case, "tools")]


def tools_added(case: Case, random: Random) -> Fault | None:
    places = tool_places(case)
    if not places:
        return None
    path = random.choice(places)
    holder, index = _split(path)
    after = copy.deepcopy(case.after)
    new = copy.deepcopy(at(after, path))
    rename(new, "brand_new_tool")
    at(after, holder).insert(index, new)
    return Fault("tools-added", case.before, case.after, after, path)


def rename(tool: dict[str, Any], name: str) -> None:
    inner = tool["function"] if isinstance(tool.get("function"), dict) else tool
    inner["name"] = name


def tools_removed(case: Case, random: Random) -> Fault | None:
    places = tool_places(case)
    if len(places) < 2:
        return None
    path = random.choice(places)
    holder, index = _split(path)
    after = copy.deepcopy(case.after)
    del at(after, holder)[index]
    return Fault("tools-removed", case.before, case.after, after, path)


def tools_reordered(case: Case, random: Random) -> Fault | None:
    places = tool_places(case)
    if len(places) < 2:
        return None
    one, two = sorted(random.sample(range(len(places)), 2))
    after = copy.deepcopy(case.after)
    first, second = copy.deepcopy(at(after, places[one])), copy.deepcopy(at(after, places[two]))
    put(after, places[one], second)
    put(after, places[two], first)
    return Fault("tools-reordered", case.before, case.after, after, places[one])


def schema_changed(case: Case, random: Random) -> Fault | None:
    found = [f"{path}{inner}.description" for path in tool_places(case) for inner in ("", ".function")]
    found = [path for path in found if isinstance(at(case.before, path), str) and at(case.before, path)]
    return edited(case, random, "tool-schema-changed", random.choice(found)) if found else None


def truncated(case: Case, random: Random) -> Fault | None:
    """Whole turns dropped from the front."""
    holder = {"gemini": "contents", "openai-responses": "input"}.get(case.wire, "messages")
    told = shared(case, "messages")
    starts = [piece for piece in told if piece.role == "user" and piece.kind in ("text", "input_text")]
    starts = [piece for piece in starts if piece.path.endswith((".content", "content[0]", "parts[0]"))]
    if len(starts) < 2:
        return None
    first, later = starts[0], random.choice(starts[1:])
    old, new = (int(piece.path.partition("[")[2].partition("]")[0]) for piece in (first, later))
    if old == new or first.wire == later.wire:
        return None
    after = copy.deepcopy(case.after)
    del at(after, holder)[old:new]
    return Fault("history-truncated", case.before, case.after, after, first.path)


def params_changed(case: Case, random: Random) -> Fault | None:
    known = {
        name: pair
        for name, pair in PARAMS[case.wire].items()
        if name in case.rules.frozen_params | case.rules.message_params
    }
    if not known:
        return None
    name, (old, new) = random.choice(sorted(known.items()))
    before, clean, after = (
        {**body, name: value} for body, value in ((case.before, old), (case.after, old), (case.after, new))
    )
    path = f"{name}.{next(iter(old))}" if isinstance(old, dict) else name
    return Fault("params-changed", before, clean, after, path)


def respelled(case: Case, random: Random) -> Fault | None:
    """Arguments of a call, parsed and written anew; or the keys of a schema in another order."""
    found = [
        f"{piece.path}.{tail}"
        for piece in shared(case, "messages")
        for tail in ("function.arguments", "arguments")
    ]
    found = [
        path for path in found if isinstance(at(case.before, path), str) and len(at(case.before, path)) > 2
    ]
    after = copy.deepcopy(case.after)
    for path in random.sample(found, len(found)):
        old = at(case.before, path)
        for new in (json.dumps(json.loads(old)), json.dumps(json.loads(old), separators=(",", ":"))):
            if new != old:
                put(after, path, new)
                offset = next(i for i, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1])
                return Fault("serialization-changed", case.before, case.after, after, path, offset)
    schemas = [
        f"{path}{inner}"
        for path in tool_places(case)
        for inner in (".function.parameters", ".input_schema", ".parameters")
    ]
    schemas = [
        path for path in schemas if isinstance(at(case.before, path), dict) and len(at(case.before, path)) > 1
    ]
    if not schemas:
        return None
    path = random.choice(schemas)
    put(after, path, dict(reversed(at(after, path).items())))
    return Fault("serialization-changed", case.before, case.after, after, path)


def image_changed(case: Case, random: Random) -> Fault | None:
    paths = [
        piece.path
        for piece in shared(case, "messages")
        if piece.role == "user" and piece.path.endswith("content[0]")
    ]
    paths = [path for path in paths if at(case.before, path).get("type") in ("text", "input_text")]
    if not paths or case.wire == "gemini" or case.dialect == "deepseek":
        return None
    path = random.choice(paths)
    holder, index = _split(path)
    sent = [copy.deepcopy(body) for body in (case.before, case.after, case.after)]
    for body, name in zip(sent, ("a", "a", "b"), strict=True):
        at(body, holder).insert(index, image(case.wire, name))
    tail = {"openai": "image_url.url", "openai-responses": "image_url", "anthropic": "source.url"}[case.wire]
    return Fault("image-changed", sent[0], sent[1], sent[2], f"{path}.{tail}", len("https://example.com/"))


def image(wire: Wire, name: str) -> dict[str, Any]:
    url = f"https://example.com/{name}.png"
    if wire == "openai":
        return {"type": "image_url", "image_url": {"url": url}}
    if wire == "openai-responses":
        return {"type": "input_image", "image_url": url}
    return {"type": "image", "source": {"type": "url", "url": url}}


def expired(case: Case, random: Random) -> Fault | None:
    if case.rules.ttl > 1e8:
        return None
    return Fault(
        "expired", case.before, case.after, case.after, seconds=(case.rules.ttl_long or case.rules.ttl) * 2
    )


def unmarked(case: Case, random: Random) -> Fault | None:
    if not case.rules.has_marks or case.rules.implicit:
        return None
    return Fault("breakpoint-missing", case.before, case.after, strip(copy.deepcopy(case.after)))


def strip(value: Any) -> Any:
    """The value without marks."""
    if isinstance(value, dict):
        return {key: strip(each) for key, each in value.items() if key not in MARK_FIELDS}
    return [strip(each) for each in value] if isinstance(value, list) else value


def far(case: Case, random: Random) -> Fault | None:
    """More positions in one turn than a look-back bridges, and no mark between."""
    if case.rules.match != "lookback":
        return None
    before, after = (copy.deepcopy(case.before) for _ in range(2))
    added = [
        {"role": role, "content": [{"type": "text", "text": f"{role} {number} " + "word " * 20}]}
        for number in range(15)
        for role in ("assistant", "user")
    ]
    after = strip(after)
    after["messages"] += added
    clean = copy.deepcopy(after)
    clean_tail = copy.deepcopy(case.before)
    clean_tail["messages"] += copy.deepcopy(added[:2])
    mark(after["messages"][-1])
    mark(clean_tail["messages"][-1])
    del clean
    return Fault("lookback-exceeded", before, clean_tail, after)


def mark(message: dict[str, Any]) -> None:
    message["content"][-1]["cache_control"] = {"type": "ephemeral"}


FAULTS: tuple[Callable[[Case, Random], Fault | None], ...] = (
    *(
        system_changed,
        history_edited,
        volatile,
        unordered,
        dynamic,
        model_changed,
        tools_added,
        tools_removed,
    ),
    *(
        tools_reordered,
        schema_changed,
        truncated,
        params_changed,
        respelled,
        image_changed,
        expired,
        unmarked,
        far,
    ),
)


def served(case: Case, before: dict[str, Any], after: dict[str, Any], seconds: float) -> tuple[int, int]:
    """Tokens that a simulated provider reads of ``after``, and those it holds; raises ``RefusedError``."""
    now = 0.0
    rules = {"*": case.rules}
    provider = Provider(rules=rules, clock=lambda: now, counter=COUNTER)
    first = provider.begin(Incoming(case.wire, "/", before, "w", str(before.get("model", case.model))))
    provider.send(first)
    provider.first_token(first)
    provider.end(first, Reply(), Usage())
    now = seconds
    second = provider.begin(Incoming(case.wire, "/", after, "w", str(after.get("model", case.model))))
    return second.lookup.read_tokens, second.snapshot.tokens


class Verdict(NamedTuple):
    """What was wrong with the explanation of one fault; empty if nothing was."""

    cause: str
    dialect: str
    wrong: tuple[str, ...]
    lost: int


def judge(case: Case, fault: Fault) -> Verdict:
    """Explain a fault and compare."""
    clean, _ = served(case, fault.before, fault.clean, 0.0)
    read, tokens = served(case, fault.before, fault.after, fault.seconds)
    lost = max(0, min(clean, tokens) - read)
    found = explain(
        fault.before,
        fault.after,
        dialect=case.dialect,
        model=case.model,
        seconds=fault.seconds,
        counter=COUNTER,
    )
    return Verdict(fault.cause, case.dialect, tuple(_wrong(fault, found, lost)), lost)


def _wrong(fault: Fault, found: CacheBreak | None, lost: int) -> Iterator[str]:
    if found is None:
        if lost or fault.path is not None:
            yield "not found"
        return
    if found.cause != fault.cause:
        yield f"cause {found.cause}"
    if fault.path is not None and (found.path, found.offset) != (fault.path, fault.offset):
        yield f"place {found.path}:{found.offset}, not {fault.path}:{fault.offset}"
    if abs(found.tokens_lost - lost) > max(1, lost * 0.01):
        yield f"lost {found.tokens_lost}, not {lost}"


def run(recordings: Sequence[Recording], faults: int, seed: int) -> tuple[list[Verdict], int]:
    """Inject faults, evenly by cause; also how many clean pairs were called broken."""
    random, alarms = Random(seed), 0
    verdicts: list[Verdict] = []
    stream = cases(recordings, random)
    while len(verdicts) < faults:
        case, inject = next(stream), FAULTS[len(verdicts) % len(FAULTS)]
        alarms += (
            explain(case.before, case.after, dialect=case.dialect, model=case.model, counter=COUNTER)
            is not None
        )
        for make in (inject, *random.sample(FAULTS, len(FAULTS))):
            try:
                fault = make(case, random)
                if fault is None:
                    continue
                verdicts.append(judge(case, fault))
            except RefusedError:  # a body that the provider would not take
                continue
            break
    return verdicts, alarms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--faults", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    recordings = [each for file in given.files for each in read_recordings(file)] or list(sample_recordings())
    verdicts, alarms = run(recordings, given.faults, given.seed)
    by_cause: defaultdict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        by_cause[verdict.cause].append(verdict)
    print(
        f"{'cause':24} {'faults':>7} {'found':>7} {'cause right':>12} {'place exact':>12} {'tokens within 1 %':>18}"
    )
    for cause, each in [*sorted(by_cause.items()), ("all", verdicts)]:
        kinds = Counter(problem.split(" ")[0] for verdict in each for problem in verdict.wrong)
        missed = kinds["not"]
        figures = (
            len(each),
            len(each) - missed,
            *(len(each) - missed - kinds[kind] for kind in ("cause", "place", "lost")),
        )
        print(f"{cause:24} {figures[0]:7} {figures[1]:7} {figures[2]:12} {figures[3]:12} {figures[4]:18}")
    for verdict in [verdict for verdict in verdicts if verdict.wrong][:20]:
        print("wrong:", verdict.cause, verdict.dialect, "; ".join(verdict.wrong))
    print(f"clean pairs called broken: {alarms} of {len(verdicts)} (simulated)")


if __name__ == "__main__":
    main()
