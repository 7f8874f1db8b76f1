"""Lint: each rule finds what it is for, follows it through a module, and leaves alone what is fine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuffer import MessageError
from llmbuffer.lint import RULES, lint_body, lint_path, lint_source, lint_text

IMPORTS = """
import datetime as dt, glob, hashlib, json, os, platform, random, secrets, time, uuid
from datetime import date, datetime
from pathlib import Path
from typing import Any
from textwrap import dedent
from uuid import uuid4
"""


def rules(source: str) -> list[str]:
    return [found.rule for found in lint_source(IMPORTS + dedented(source))]


def dedented(source: str) -> str:
    import textwrap

    return textwrap.dedent(source).strip("\n") + "\n"


VALUES = {
    "datetime.now()": "LB001",
    "datetime.now().strftime('%H:%M')": "LB001",
    "dt.datetime.utcnow().isoformat()": "LB001",
    "date.today()": "LB001",
    "time.time()": "LB001",
    "time.strftime('%c')": "LB001",
    "time.ctime()": "LB001",
    "datetime.fromtimestamp(time.time())": "LB001",
    "str(datetime.now())[:10]": "LB001",
    "uuid4()": "LB002",
    "uuid.uuid4().hex[:8]": "LB002",
    "random.choice(['a', 'b'])": "LB002",
    "secrets.token_hex()": "LB002",
    "os.getpid()": "LB002",
    "id(client)": "LB002",
    "hash('text')": "LB002",
    "', '.join({'a', 'b'})": "LB003",
    "', '.join(set(names))": "LB003",
    "list({name for name in names})": "LB003",
    "' '.join(os.listdir('docs'))": "LB003",
    "[str(each) for each in Path('docs').glob('*.md')]": "LB003",
    "glob.glob('*.md')": "LB003",
    "json.dumps(vars(client))": "LB004",
    "os.environ['USER']": "LB005",
    "os.getenv('TEAM')": "LB005",
    "platform.platform()": "LB005",
}
FORMS = {
    "f-string": "f'You are kind. {VALUE}'",
    "format": "'You are kind. {}'.format(VALUE)",
    "percent": "'You are kind. %s' % (VALUE,)",
    "concatenation": "'You are kind. ' + str(VALUE)",
    "join": "' '.join(['You are kind.', str(VALUE)])",
    "choice": "'You are kind.' if client else f'{VALUE}'",
    "dedent": "dedent(f'''You are kind. {VALUE}''')",
}
PLACES = {
    "system": "client.messages.create(system=TEXT, messages=[])",
    "system blocks": "client.messages.create(system=[{'type': 'text', 'text': TEXT}], messages=[])",
    "instructions": "client.responses.create(instructions=TEXT, input='Hi')",
    "system_instruction": "types.GenerateContentConfig(system_instruction=TEXT)",
    "message": "messages = [{'role': 'system', 'content': TEXT}]",
    "developer message": "messages = [{'role': 'developer', 'content': TEXT}]",
    "class": "SystemMessage(content=TEXT)",
    "tuple": "ChatPromptTemplate.from_messages([('system', TEXT), ('user', '{question}')])",
    "context": "StableContext('gpt-5.5', TEXT)",
    "context by keyword": "llmbuffer.StableContext(model='gpt-5.5', system=TEXT)",
    "segment": "Segment('rules', TEXT)",
    "name": "SYSTEM_PROMPT = TEXT",
    "attribute": "self.system_prompt = TEXT",
    "builder": "def build_system_prompt():\n    return TEXT",
    "tool": "{'name': 'track', 'description': TEXT, 'input_schema': {}}",
    "chat tool": "{'type': 'function', 'function': {'name': 'track', 'description': TEXT, 'parameters': {}}}",
    "tool class": "StructuredTool.from_function(track, description=TEXT)",
    "tool decorator": "@tool(description=TEXT)\ndef track(): ...",
    "docstring": "track.__doc__ = TEXT",
    "crew": "Agent(role='clerk', goal='help', backstory=TEXT)",
    "agent": "create_agent(model, tools, system_prompt=TEXT)",
}


@pytest.mark.parametrize("value", VALUES)
def test_every_volatile_value_is_found(value: str) -> None:
    assert rules(
        f"client.messages.create(system={FORMS['f-string'].replace('VALUE', value.replace(chr(39), chr(34)))})"
    ) == [VALUES[value]]


@pytest.mark.parametrize("form", FORMS)
def test_every_way_to_put_a_value_into_a_text_is_followed(form: str) -> None:
    assert rules(f"client.messages.create(system={FORMS[form].replace('VALUE', 'time.time()')})") == ["LB001"]


@pytest.mark.parametrize("place", PLACES)
def test_every_stable_place_is_known(place: str) -> None:
    dynamic, fixed = (
        PLACES[place].replace("TEXT", "f'Now {time.time()}'"),
        PLACES[place].replace("TEXT", "'Now.'"),
    )
    assert rules(dynamic) == ["LB001"]
    assert rules(fixed) == []


IN_A_CLASS = """
class Clerk:
    def __init__(self):
        self.now = datetime.now()
    def ask(self):
        create(system=f"{self.now}")
"""
BY_A_METHOD = """
class Clerk:
    def rules(self):
        return str(datetime.now())
    def ask(self):
        create(system=self.rules())
"""


@pytest.mark.parametrize(
    "source",
    [
        "now = datetime.now()\ntext = f'It is {now:%H:%M}'\ncreate(system=text)",
        "def rules():\n    return f'It is {datetime.now()}'\ncreate(system=rules())",
        "def rules(now):\n    return f'It is {now}'\ncreate(system=rules(datetime.now()))",
        "def rules(now=datetime.now()):\n    return f'It is {now}'\ncreate(system=rules())",
        "def ask(text):\n    create(system=text)\nask(f'It is {datetime.now()}')",
        "lines = ['Be kind.']\nlines.append(f'It is {datetime.now()}')\ncreate(system='\\n'.join(lines))",
        "text = 'Be kind.'\ntext += f'It is {datetime.now()}'\ncreate(system=text)",
        "text = 'Be kind.'\nif late:\n    text = f'It is {datetime.now()}'\ncreate(system=text)",
        IN_A_CLASS,
        BY_A_METHOD,
        "async def ask():\n    with timer() as t:\n        text = str(datetime.now())\n    await create(system=text)",
        "def rules(context):\n    return f'{datetime.now()}'\nAgent(instructions=rules)",
        "@agent.system_prompt\ndef add_date():\n    return f'{datetime.now()}'",
        "@agent.instructions()\nasync def add_date(run):\n    return f'{datetime.now()}'",
        "if (now := datetime.now()):\n    create(system=f'{(now := datetime.now())}')",
    ],
)
def test_values_are_followed_through_names_and_helpers(source: str) -> None:
    assert rules(source) == ["LB001"]


@pytest.mark.parametrize(
    "source",
    [
        "session.request('Hi', dynamic={'clock': f'{datetime.now()}'})",
        "session.respond('Hi', dynamic=[Segment('clock', str(datetime.now()), 'turn')])",
        "Segment('clock', str(datetime.now()), level='turn')",
        "StableContext('m', 'Be kind.' + dynamic_text('now', datetime.now()))",
        "messages = [{'role': 'user', 'content': f'It is {datetime.now()}'}]",
        "create(system='Be kind.', messages=[('user', f'It is {datetime.now()}')])",
        "create(system='Be kind.', metadata={'at': time.time()}, timeout=time.time() + 5)",
        "create(system='A' if datetime.now().hour < 12 else 'B')",
        "create(system=', '.join(sorted({'a', 'b'})))",
        "create(system=f'{len(set(names))} names')",
        "create(system=json.dumps({'b': 1, 'a': 2}))",
        "create(system=json.dumps(vars(client), sort_keys=True))",
        "create(system=time.strftime('%Y', fixed))",
        "create(system=time.ctime(0))",
        "def get_time():\n    return str(datetime.now())\nAgent(instructions='Be kind.', tools=[get_time])",
        "@tool\ndef get_time():\n    return str(datetime.now())",
        "create(system=f'{set()}')",
        "text = str(datetime.now())\nlog(text)\ntext = 'Be kind.'\ncreate(system=text)",
        "text = 'Be kind.'\ncreate(system=text)\ntext = str(datetime.now())",
        "def rules(now):\n    return 'Be kind.'\ncreate(system=rules(datetime.now()))",
        "def id(value):\n    return 7\ncreate(system=f'{id(client)}')",
        "random = Chooser()\ncreate(system=random.choice(['a']))".replace("random", "chooser"),
        "create(system=Path('rules.md').read_text())",
        "create(system='Be kind.', tools=[{'type': 'mcp', 'server_url': os.environ['URL']}])",
        "create(system='The policy of 2026-01-05 holds.')",
        "started = time.time()\nprint(f'It took {time.time() - started}')",
        "settings = {'role': 'user', 'content': str(uuid4())}",
        "os.system = datetime.now",
    ],
)
def test_what_is_fine_is_left_alone(source: str) -> None:
    assert rules(source) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("messages = messages[-10:]", ["LB006"]),
        ("self.history = self.history[-n:]", ["LB006"]),
        ("state['messages'] = state['messages'][-6:]", ["LB006"]),
        ("create(messages=[system, *messages[-10:]])", ["LB006"]),
        ("create(messages=[system] + history[-10:])", ["LB006"]),
        ("messages.pop(0)", ["LB006"]),
        ("self.messages.popleft()", ["LB006"]),
        ("del messages[1]", ["LB006"]),
        ("del chat_history[:2]", ["LB006"]),
        ("history = deque(maxlen=20)", ["LB006"]),
        ("messages.insert(1, {'role': 'user', 'content': facts})", ["LB007"]),
        ("messages[0]['content'] = text", ["LB007"]),
        ("messages[0] = message", ["LB007"]),
        ("last = messages[-1]", []),
        ("print(messages[-10:])", []),
        ("messages.pop()", []),
        ("del messages[-1]", []),
        ("messages.append(message)", []),
        ("messages.insert(0, {'role': 'system', 'content': 'Be kind.'})", []),
        ("lines = lines[-10:]", []),
        ("queue.pop(0)", []),
    ],
)
def test_histories_that_move_are_found(source: str, found: list[str]) -> None:
    assert rules(source) == found


def test_a_place_of_a_template_is_found_where_it_stands_in_a_system_prompt() -> None:
    assert rules(
        "ChatPromptTemplate.from_messages([('system', 'It is {current_time}.'), ('user', '{now}')])"
    ) == ["LB008"]
    assert rules("ChatPromptTemplate.from_messages([('system', 'You help {customer}.')])") == []


def test_unordered_tools_are_found() -> None:
    assert rules("create(tools=list({track, reroute}))") == ["LB003"]
    assert rules("names = set(found)\ncreate(tools=[offered(name) for name in names])") == ["LB003"]
    assert rules("@tool\ndef track(day: str = str(date.today())): ...") == ["LB001"]


def test_a_finding_says_where_what_and_what_to_do() -> None:
    [found] = lint_source("import time\nnow = time.time()\ncreate(\n  system=f'{now}')\n", path="a.py")
    assert (found.path, found.line, found.column, found.rule) == ("a.py", 2, 7, "LB001")
    assert str(found) == "a.py:2:7: LB001 time.time() reaches system= in line 4"
    assert "dynamic=" in found.fix
    assert found.severity == "error"


def test_one_value_in_two_places_is_reported_once() -> None:
    assert rules("now = time.time()\ncreate(system=f'{now}')\ncreate(system=f'{now}!')") == ["LB001"]


@pytest.mark.parametrize(
    ("comment", "hidden"),
    [
        ("# llmbuffer: ignore[LB001]", True),
        ("# llmbuffer: ignore[LB001, LB003]  # because", True),
        ("# llmbuffer: ignore", True),
        ("# llmbuffer: ignore[LB002]", False),
        ("# nothing", False),
    ],
)
def test_comments_hide_findings(comment: str, hidden: bool) -> None:
    for source in (
        f"import time\ncreate(system=f'{{time.time()}}')  {comment}\n",
        f"import time\nnow = time.time()  {comment}\ncreate(system=f'{{now}}')\n",
        f"import time\nnow = time.time()\ncreate(system=f'{{now}}')  {comment}\n",
    ):
        assert (lint_source(source) == []) == hidden


def test_a_file_can_be_ignored() -> None:
    source = "import time, uuid\ncreate(system=f'{time.time()} {uuid.uuid4()}')\n"
    assert lint_source(f"# llmbuffer: ignore-file\n{source}") == []
    assert [each.rule for each in lint_source(f"# llmbuffer: ignore-file[LB001]\n{source}")] == ["LB002"]


# Prompts and bodies


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("You are kind. It is 2026-11-22 10:30:05.", "LB101"),
        ("Your id is 8f14e45f-ceea-467f-a5a3-6dedd4bea254.", "LB102"),
        ("Trace 8f14e45fceea167a5a36dedd4bea2543.", "LB103"),
        ("This is turn 12.", "LB104"),
        ("You know {'Rome', 'Genoa'}.", "LB105"),
        ("You are <clerk.Clerk object at 0x7f3a>.", "LB105"),
        ("Be kind. Context information is below: Rain.", "LB106"),
        ("It is {{ current_time }}.", "LB008"),
        ("It is ${now}.", "LB008"),
    ],
)
def test_every_kind_of_volatile_text_is_found(text: str, rule: str) -> None:
    assert [found.rule for found in lint_text(text)] == [rule]


def test_a_plain_prompt_is_fine() -> None:
    assert (
        lint_text(
            "You track parcels in 12 cities, at 9 to 5, for {customer}. Never promise more than 100 USD."
        )
        == []
    )


def test_lines_and_columns_of_a_text_count_from_one() -> None:
    [found] = lint_text("Be kind.\n  It is 10:30:05.", path="rules.prompt")
    assert found.where == "rules.prompt:2:9"
    assert "10:30" not in str(found)


BODIES: dict[str, dict[str, Any]] = {
    "openai": {
        "messages": [
            {"role": "system", "content": "It is 10:30:05."},
            {"role": "user", "content": "10:31:00"},
        ]
    },
    "responses": {"input": "at 10:31:00", "instructions": "It is 10:30:05."},
    "anthropic": {"system": "It is 10:30:05.", "messages": [{"role": "user", "content": "10:31:00"}]},
    "gemini": {"contents": [], "systemInstruction": {"parts": [{"text": "It is 10:30:05."}]}},
}


@pytest.mark.parametrize("wire", BODIES)
def test_bodies_are_looked_at_where_they_should_be_stable(wire: str) -> None:
    found = lint_body(BODIES[wire])
    assert [each.rule for each in found] == ["LB101"]
    assert (found[0].place or "").endswith(":6")


def test_tools_are_looked_at_too() -> None:
    tool = {"name": "track", "description": "Tracks. Run 7.", "input_schema": {"type": "object"}}
    assert [each.rule for each in lint_body({"tools": [tool], "messages": []})] == ["LB104"]
    with pytest.raises(MessageError):
        lint_body({"nothing": 1})


# Files


def test_folders_are_walked_and_what_is_no_ones_own_is_left_out(tmp_path: Path) -> None:
    bad = "import time\ncreate(system=f'{time.time()}')\n"
    for name in (
        "a.py",
        "b/c.py",
        ".venv/lib/d.py",
        "node_modules/e.py",
        ".git/f.py",
        "b/skipped.py",
        "notes.md",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(bad if path.suffix == ".py" else "It is 10:30:05.", "utf-8")
    (tmp_path / "rules.prompt").write_text("It is 10:30:05.", "utf-8")
    found = [Path(each.path).name for each in lint_path(tmp_path, exclude=["skipped.py"])]
    assert sorted(found) == ["a.py", "c.py", "rules.prompt"]
    assert [each.rule for each in lint_path(tmp_path / "notes.md")] == ["LB101"]
    assert len(list(lint_path(tmp_path, exclude=["b/"]))) == 3 - 1


def test_files_that_cannot_be_read_are_reported_and_stop_nobody(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"\xff\xfe not text")
    (tmp_path / "b.py").write_text("def broken(:\n", "utf-8")
    (tmp_path / "c.ipynb").write_text("no notebook", "utf-8")
    (tmp_path / "d.py").write_bytes(b"# coding: no-such-code\n")
    (tmp_path / "e.py").write_text("import time\ncreate(system=f'{time.time()}')\n", "utf-8")
    (tmp_path / "f.py").write_text("x = " + "(" * 5000 + ")" * 5000, "utf-8")
    (tmp_path / "g.py").symlink_to(tmp_path / "nowhere.py")
    found = {Path(each.path).name: each.rule for each in lint_path(tmp_path)}
    expected = {"a.py": "LB901", "b.py": "LB902", "c.ipynb": "LB902", "d.py": "LB901", "e.py": "LB001"}
    assert found == {**expected, "f.py": "LB902", "g.py": "LB901"}
    with pytest.raises(FileNotFoundError):
        list(lint_path(tmp_path / "missing"))


def test_notebooks_are_one_program_and_cells_have_lines_of_their_own(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": "# It is 10:30:05"},
        {
            "cell_type": "code",
            "source": ["%matplotlib inline\n", "import time\n", "!pip list\n", "now = time.time()"],
        },
        {"cell_type": "code", "source": "%%bash\necho system"},
        {"cell_type": "code", "source": "this is broken ("},
        {"cell_type": "code", "source": "create(\n    system=f'{now}')"},
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells}), "utf-8")
    [found] = lint_path(path)
    assert (found.rule, found.cell, found.line, found.column) == ("LB001", 2, 4, 7)
    assert ":cell 2:4:7" in found.where


def test_a_log_is_looked_at_line_by_line_and_each_finding_told_once(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    clean = {"body": {"messages": [{"role": "system", "content": "Be kind."}]}}
    lines = [
        json.dumps(each) for each in (clean, {"body": BODIES["anthropic"]}, {"body": BODIES["anthropic"]})
    ]
    log.write_text("\n".join([*lines, "broken", "[]"]), "utf-8")
    assert [(each.rule, each.line) for each in lint_path(log)] == [("LB101", 2)]


def test_source_is_neither_imported_nor_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap.py"
    marker = tmp_path / "ran"
    trap.write_text(f"from pathlib import Path\nPath({str(marker)!r}).touch()\n", "utf-8")
    assert list(lint_path(trap)) == []
    assert not marker.exists()


def test_generated_code_with_many_paths_ends_soon() -> None:
    lines = ["import time", "a0 = time.time()"]
    lines += [f"a{n + 1} = f'{{a{n}}}{{a{n}}}{{a{n}}}'" for n in range(40)]
    assert len(lint_source("\n".join([*lines, "create(system=a40)"]))) <= 1


@given(st.text(max_size=200))
def test_no_source_and_no_text_makes_it_fail(text: str) -> None:
    for found in [*lint_source(text), *lint_text(text)]:
        assert found.rule in RULES
        assert found.line >= 1


# The command


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", "from llmbuffer.cli import main; main()", "lint", *map(str, arguments)]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_prints_findings_and_exits_with_one(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("import os, time\ncreate(system=f'{time.time()} {os.getcwd()}')\n", "utf-8")
    ran = run(path)
    assert (ran.returncode, "Traceback" in ran.stderr) == (1, False)
    assert f"{path}:2:18: LB001 time.time() reaches system= (error)" in ran.stdout
    document = json.loads(run(path, "--json", "--ignore", "lb005").stdout)
    assert document["count"] == 1
    assert document["findings"][0]["rule"] == "LB001"
    assert document["findings"][0]["fix"]
    annotated = run(path, "--github").stdout.splitlines()
    assert [line.partition(" ")[0] for line in annotated] == ["::error", "::notice"]


def test_the_command_exits_with_zero_for_nothing_and_two_for_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("create(system='Be kind.')\n", "utf-8")
    assert run(path).returncode == 0
    missing = run(tmp_path / "missing")
    assert (missing.returncode, "Traceback" in missing.stderr) == (2, False)
    assert run(path, "--ignore", "LB777").returncode == 2
    assert run().returncode == 2
