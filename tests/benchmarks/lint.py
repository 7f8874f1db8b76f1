"""What lint finds in packages that build no prompts, and in generated faults: `python tests/benchmarks/lint.py [FOLDER…] [--json]`.

Without folders it reads the installed packages ``openai``, ``anthropic``, ``google``, ``pydantic``, ``distributed`` and
``hypothesis``: whatever it reports there is to be looked at as a possible false alarm. The corpus puts every volatile value
into every stable place in every form, once as a fault and once behind what makes it harmless (in a user's message).
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from llmbuffer.lint import lint_path, lint_source

PACKAGES = ("openai", "anthropic", "google", "pydantic", "distributed", "hypothesis")
IMPORTS = "import datetime as dt, glob, json, os, random, secrets, time, uuid\nfrom datetime import date, datetime\n"
VALUES = (
    *(
        "datetime.now()",
        "dt.datetime.utcnow()",
        "date.today()",
        "time.time()",
        "uuid.uuid4()",
        "random.random()",
    ),
    *(
        "secrets.token_hex()",
        "os.getpid()",
        "id(client)",
        "list({'a', 'b'})",
        "os.listdir()",
        "glob.glob('*')",
    ),
)
FORMS = (
    "f'Be kind. {VALUE}'",
    "'Be kind. {}'.format(VALUE)",
    "'Be kind. %s' % (VALUE,)",
    "'Be kind.' + str(VALUE)",
)
STEPS = (
    "PLACE",
    "text = TEXT\nPLACE",
    "def rules():\n    return TEXT\ntext = rules()\nPLACE",
    "def rules(value):\n    return value\ntext = rules(TEXT)\nPLACE",
    "lines = ['Be brief.']\nlines.append(TEXT)\ntext = ' '.join(lines)\nPLACE",
)
PLACES = (
    *("create(system=TEXT)", "create(instructions=TEXT)", "messages = [{'role': 'system', 'content': TEXT}]"),
    *(
        "SystemMessage(content=TEXT)",
        "StableContext('m', TEXT)",
        "SYSTEM_PROMPT = TEXT",
        "[('system', TEXT)]",
    ),
    "{'name': 'track', 'description': TEXT, 'input_schema': {}}",
)
HARMLESS = (
    *("messages = [{'role': 'user', 'content': TEXT}]", "HumanMessage(content=TEXT)", "[('user', TEXT)]"),
    *("session.request('Hi', dynamic={'now': TEXT})", "Segment('now', TEXT, level='turn')", "log.info(TEXT)"),
)


def programs(places: tuple[str, ...]) -> list[str]:
    out = []
    for value, form, step, place in itertools.product(VALUES, FORMS, STEPS, places):
        text = form.replace("VALUE", value.replace("'", '"'))
        named = "TEXT" if step == "PLACE" else "text"
        out.append(IMPORTS + step.replace("PLACE", place.replace("TEXT", named)).replace("TEXT", text))
    return out


def corpus() -> dict[str, int]:
    faults, harmless = programs(PLACES), programs(HARMLESS)
    return {
        "faults": len(faults),
        "found": sum(len(lint_source(program)) == 1 for program in faults),
        "harmless": len(harmless),
        "false_alarms": sum(bool(lint_source(program)) for program in harmless),
    }


def folders(named: list[str]) -> list[Path]:
    if named:
        return [Path(each) for each in named]
    found = [importlib.util.find_spec(name) for name in PACKAGES]
    return [Path(next(iter(each.submodule_search_locations or ()))) for each in found if each is not None]


def packages(named: list[str]) -> list[dict[str, Any]]:
    rows = []
    for folder in folders(named):
        start = time.process_time()
        found = list(lint_path(folder))
        seconds = time.process_time() - start
        files = sum(1 for _ in folder.rglob("*.py"))
        lines = sum(path.read_bytes().count(b"\n") for path in folder.rglob("*.py"))
        rows.append(
            {
                "package": folder.name,
                "files": files,
                "lines": lines,
                "findings": len(found),
                "per_1000_files": round(1000 * len(found) / max(1, files), 2),
                "rules": dict(sorted(Counter(each.rule for each in found).items())),
                "lines_per_second": round(lines / max(seconds, 1e-9)),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows, faults = packages(arguments.folders), corpus()
    if arguments.json:
        print(json.dumps({"packages": rows, "corpus": faults, "measured": True}, indent=2))
        return
    print(f"{'package':14} {'files':>6} {'lines':>8} {'findings':>8} {'per 1,000 files':>15}  rules")
    for row in rows:
        shown = f"{row['files']:>6,} {row['lines']:>8,} {row['findings']:>8} {row['per_1000_files']:>15}"
        print(f"{row['package']:14} {shown}  {row['rules'] or ''}")
    print("corpus: " + ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in faults.items()))


if __name__ == "__main__":
    main()
