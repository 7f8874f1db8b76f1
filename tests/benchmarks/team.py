"""Teams in figures: `python tests/benchmarks/team.py [--json] [--only traces,captures] [--traces DIR] [--captures DIR]`.

`traces`: the recorded teams of `multiagent_public.jsonl.gz` with a prompt for each agent (`separate`), one transcript of all
(`shared`) and whatever the forecast takes (`auto`), under the rules and prices of five models; tokens and
costs are simulated. `captures`: what frameworks send in group chats, and the same conversations through a `Team`; counted in
characters of the JSON (as SDKs write it) of tools, system text and messages in that order, a string as one text part: what the longest common
prefix with an earlier request covers could be re-used at best. Measured on the bodies.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmbuffer import Message, Session, StableContext, Usage
from llmbuffer.replay import Figures, ReplayResult, read_recordings, replay
from llmbuffer.team import Member, Team

SHARED = Path(__file__).resolve().parents[3] / "shared"
MODELS = [
    ("anthropic", "claude-sonnet-5.5"),
    ("openai", "gpt-5.5"),
    ("openai", "gpt-5.6"),
    ("openai", "gpt-4o"),
    ("deepseek", "deepseek-v4-pro"),
]
LAYOUTS = ("separate", "shared", "auto")
CAPTURES = [
    ("LangGraph, 3 agents", "langchain", "langgraph_3_agents_shared_messages"),
    ("AutoGen classic, round robin", "autogen_conversable", "groupchat_round_robin"),
    (
        "AutoGen classic, auto speaker (without the selecting requests)",
        "autogen_conversable",
        "groupchat_auto_speaker",
    ),
    ("AutoGen agentchat, round robin", "autogen_agentchat", "round_robin_3_agents"),
]


# Recorded teams


def traces(path: Path) -> list[dict[str, Any]]:
    """A row for each source and model: hit ratio and cost under each layout."""
    recordings = list(read_recordings(path))
    rows: list[dict[str, Any]] = []
    for dialect, model in MODELS:
        found: dict[str, ReplayResult] = {
            layout: replay(recordings, dialect=dialect, model=model, layout=layout, recorded_usage=False)  # type: ignore[arg-type]  # names of layouts
            for layout in LAYOUTS
        }
        for source in found["auto"].rows:
            figures = {layout: found[layout].rows[source] for layout in LAYOUTS}
            rows.append({"model": model, "source": source, **_compared(figures)})
    return rows


def _compared(figures: Mapping[str, Figures]) -> dict[str, Any]:
    costs = {layout: figures[layout].cost_usd or 0.0 for layout in LAYOUTS}
    better = min(costs["separate"], costs["shared"])
    return {
        "requests": figures["auto"].requests,
        **{f"hit_{layout}": figures[layout].hit_ratio for layout in LAYOUTS},
        **{f"usd_{layout}": costs[layout] for layout in LAYOUTS},
        "auto_to_better": costs["auto"] / better if better else 1.0,
        "gain_points": 100 * (figures["auto"].hit_ratio - figures["separate"].hit_ratio),
        "shared_sessions": f"{figures['auto'].shared_sessions}/{figures['auto'].sessions}",
        "measured": False,
    }


# Captured group chats


def captures(folder: Path) -> list[dict[str, Any]]:
    """A row for each capture: re-usable characters as the framework sent it, and through a team of either kind."""
    rows = []
    for title, file, scenario in CAPTURES:
        bodies = list(_bodies(folder / f"{file}.jsonl.gz", scenario))
        speaking = [body for body in bodies if _agent(body) is not None]
        row: dict[str, Any] = {"capture": title, "requests": len(speaking), "as captured": _reuse(speaking)}
        for roles in ("turn", "sticky", "auto"):
            row[f"shared, roles {roles}"] = _reuse(_through_team(speaking, roles))
        rows.append({**row, "measured": True})
    return rows


def _bodies(path: Path, scenario: str) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            recorded = json.loads(line)
            if recorded["scenario"] == scenario:
                yield recorded["body"]


def _agent(body: Mapping[str, Any]) -> str | None:
    """Who speaks, as its system prompt begins: "You are planner. ..."."""
    words = str(body["messages"][0]["content"]).split()
    name = words[2].rstrip(".") if words[:2] == ["You", "are"] else ""
    return name if name in ("planner", "coder", "critic") else None


def _through_team(bodies: list[dict[str, Any]], roles: Any) -> list[Mapping[str, Any]]:
    """The same conversation through a team: what each request brings that nobody has said in it is the user's."""
    prompts = {str(_agent(body)): body["messages"][0]["content"] for body in bodies}
    members = [Member(name, system=system) for name, system in prompts.items()]
    session = Session(StableContext("gpt-5.5"))
    team = Team(session, members, "shared", roles=roles)
    said: list[str] = []
    out: list[Mapping[str, Any]] = []
    for index, body in enumerate(bodies):
        for message in body["messages"][1:]:
            if message["content"] not in said:
                said.append(message["content"])
                team.append(Message("user", message["content"]))
        name = str(_agent(body))
        request = team.request(name)
        out.append(request.body)
        reply = _reply(bodies[index + 1 :], said) or "no reply was captured"
        said.append(reply)
        request.observe(Usage(), Message("assistant", reply))
    return out


def _reply(later: list[dict[str, Any]], said: list[str]) -> str | None:
    """What the agent answered, as the next request shows it: the first that nobody had said."""
    messages = later[0]["messages"][1:] if later else []
    return next((message["content"] for message in messages if message["content"] not in said), None)


def _reuse(bodies: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    texts = [_text(body) for body in bodies]
    shared = [
        max((_common(text, earlier) for earlier in texts[:index]), default=0)
        for index, text in enumerate(texts)
    ]
    whole = sum(map(len, texts))
    return {"characters": whole, "not reusable": whole - sum(shared), "reuse": sum(shared) / whole}


def _text(body: Mapping[str, Any]) -> str:
    messages = [{**message, "content": _parts(message.get("content"))} for message in body["messages"]]
    pieces = [*body.get("tools", []), *messages]
    return "".join(json.dumps(piece, sort_keys=True, separators=(",", ":")) for piece in pieces)


def _parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _common(one: str, two: str) -> int:
    return len(os.path.commonprefix([one, two]))  # noqa: RUF071 - characters are what is counted


# Output


def _show_traces(rows: list[dict[str, Any]]) -> None:
    print("recorded teams, simulated: hit ratio and US dollars")
    head = f"{'model':<18} {'source':<18} {'calls':>5}"
    print(
        head
        + "".join(f" {layout:>9} {'USD':>8}" for layout in LAYOUTS)
        + f" {'auto/better':>11} {'points':>6} shared"
    )
    for row in rows:
        cells = "".join(f" {row[f'hit_{layout}']:>9.4f} {row[f'usd_{layout}']:>8.4f}" for layout in LAYOUTS)
        end = f" {row['auto_to_better']:>11.4f} {row['gain_points']:>+6.1f} {row['shared_sessions']}"
        print(f"{row['model']:<18} {row['source']:<18} {row['requests']:>5}{cells}{end}")


def _show_captures(rows: list[dict[str, Any]]) -> None:
    print(
        "captured group chats, measured: characters that no earlier request covers (and the share that one does)"
    )
    for row in rows:
        kinds = ("as captured", "shared, roles turn", "shared, roles sticky", "shared, roles auto")
        cells = "; ".join(
            f"{kind} {row[kind]['not reusable']:,} ({row[kind]['reuse']:.1%})" for kind in kinds
        )
        print(f"{row['capture']}, {row['requests']} requests: {cells}")


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--only", default="traces,captures")
    parser.add_argument("--traces", type=Path, default=SHARED / "traces")
    parser.add_argument("--captures", type=Path, default=SHARED / "captures")
    options = parser.parse_args()
    document: dict[str, Any] = {}
    for name, folder, measure, show in (
        ("traces", options.traces / "multiagent_public.jsonl.gz", traces, _show_traces),
        ("captures", options.captures, captures, _show_captures),
    ):
        if name not in options.only.split(","):
            continue
        if not folder.exists():
            print(f"{name}: skipped, {folder.name} is not here", file=sys.stderr)
            continue
        document[name] = measure(folder)
        if not options.json:
            show(document[name])
    if options.json:
        print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
