"""The promises of the whole repository: what imports what, how large things are, what no file may hold."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import llmbuffer

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "core" / "src"
PACKAGE = SOURCE / "llmbuffer"

# The rooms of the core, the ground floor first. A room imports from its own floor and from those below; whatever
# stands in the package has a place here.
FLOORS = [
    {"errors", "frozen", "messages", "openai_messages", "parts", "tools", "usage"},
    {"rules"},
    {"tokens", "chain", "context", "rendered", "snapshot"},
    {"cache", "matching", "routing"},
    {
        "advice",
        "attribution",
        "bodies",
        "layout",
        "forecast",
        "breaks",
        "compaction",
        "ledger",
        "lifetime",
        "pictures",
        "prices",
        "scanning",
    },
    {"dialects", "hookspecs"},
    {"frameworks", "plugins"},
    # `respond` is a method of Session that calls the loop, and the loop is written in terms of Session: one floor. So do
    # `reconcile` and the team whose layout the members of a host's conversation take.
    {"store", "reconcile", "team", "session", "loop", "calls", "conversation"}
    | {
        "assembly",
        "archive",
        "asking",
        "compacted",
        "compacting",
        "compactor",
        "claims",
        "coalescing",
        "conversing",
        "documenting",
        "entering",
        "family",
        "finishing",
        "freezing",
        "judging",
        "labelling",
        "observing",
        "opening",
        "placing",
        "preflight",
        "prewarm",
        "prompt",
        "rebuilding",
        "reconciling",
        "replies",
        "request",
        "state",
        "turns",
        "tasking",
        "underway",
    },
    {
        "explaining",
        "fanout",
        "limits",
        "graph",
        "replay",
        "lint",
        "capture",
        "otel",
        "seam",
        "simulate",
        "engine",
        "pages",
        "report",
        "testing",
    },
    {"cli", "demo"},
]
ROOMS: set[str] = set().union(*FLOORS)
# The request path gets along without these.
SIDE_ROOMS = {"store", "graph", "replay", "report"}
REQUEST_PATH = set().union(*FLOORS[:8]) - SIDE_ROOMS

# What `import llmbuffer` must not load: frameworks, SDKs and their HTTP clients, command line libraries, numbers.
HEAVY = (
    *("anthropic", "autogen", "autogen_agentchat", "autogen_core", "crewai", "langchain"),
    *("langchain_core", "langgraph", "litellm", "llama_index", "openai"),
    *("click", "rich", "typer"),
    *("aiohttp", "genai_prices", "httpx", "httpx2", "numpy", "pydantic", "pytest", "requests"),
    *("starlette", "uvicorn"),
    *("regex", "tiktoken", "tiktoken_ext"),
)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def shipped() -> list[Path]:
    """The modules of every distribution."""
    return [*modules(), *sorted((ROOT / "integrations").glob("*/src/**/*.py"))]


def python_files() -> list[Path]:
    return [path for path in repository_files() if path.suffix == ".py"]


@cache
def repository_files() -> list[Path]:
    """All files that are, or would be, committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("without git nobody knows which files are committed")
    paths = (ROOT / os.fsdecode(name) for name in listed.stdout.split(b"\0") if name)
    return sorted({path for path in paths if path.is_file()})


@cache
def lines(path: Path) -> list[str]:
    """The lines of a text file; none for a binary one."""
    content = path.read_bytes()
    return [] if b"\0" in content else content.decode("utf-8").splitlines()


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def floor_of(room: str) -> int:
    """The number of the room's floor; -1 for what is no room, the front door `llmbuffer` itself among it."""
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), -1)


def room_of(path: Path) -> str:
    """The room that a module belongs to: `dialects` for `llmbuffer/dialects/openai_chat.py`."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a module imports, wherever in it the import stands."""
    source = next(folder for folder in path.parents if folder.name == "src")
    package = path.relative_to(source).parent.parts
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def imported_rooms(path: Path) -> Iterator[tuple[int, str]]:
    for line, name in imported(path):
        top, _, rest = name.partition(".")
        if top == "llmbuffer":
            yield line, rest.partition(".")[0]


def test_importing_the_core_loads_nothing_heavy() -> None:
    program = "import sys; import llmbuffer; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert sorted(set(run.stdout.split()) & set(HEAVY)) == []


def test_imports_point_one_way() -> None:
    upward = [
        f"{where(path, line)}: {room_of(path)} imports {room}"
        for path in modules()
        if room_of(path) in ROOMS
        for line, room in imported_rooms(path)
        if floor_of(room) > floor_of(room_of(path))
    ]
    assert upward == []


def test_only_the_top_floor_uses_the_front_door() -> None:
    """`from llmbuffer import Session` inside the core would load every room for one name."""
    below = ROOMS - FLOORS[-1]
    through = [
        f"{where(path, line)}: {name or 'llmbuffer'}"
        for path in modules()
        if room_of(path) in below
        for line, name in imported_rooms(path)
        if name not in ROOMS and name != "__version__"
    ]
    assert through == []


def test_the_request_path_imports_no_side_room() -> None:
    entered = [
        f"{where(path, line)}: {room_of(path)} imports {room}"
        for path in modules()
        if room_of(path) in REQUEST_PATH
        for line, room in imported_rooms(path)
        if room in SIDE_ROOMS
    ]
    assert entered == []


def test_every_module_has_a_floor() -> None:
    homeless = {room_of(path) for path in modules()} - ROOMS - {"__init__"}
    assert homeless == set(), "give it a place in FLOORS"


def test_public_names_are_few_and_sorted() -> None:
    assert list(llmbuffer.__all__) == sorted(set(llmbuffer.__all__))
    assert len(llmbuffer.__all__) <= 45


@pytest.mark.parametrize("name", [name for name in llmbuffer.__all__ if not name.startswith("__")])
def test_a_public_name_is_explained_by_an_example(name: str) -> None:
    value = getattr(llmbuffer, name)
    if inspect.isclass(value) and issubclass(value, BaseException):
        assert inspect.getdoc(value)
    else:
        assert ">>>" in (value.__doc__ or ""), f"the docstring of llmbuffer.{name} has no example"


def test_every_module_says_what_it_is() -> None:
    assert [str(path) for path in shipped() if not ast.get_docstring(tree(path))] == []


def test_modules_are_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {len(lines(path))} lines" for path in shipped() if len(lines(path)) > 400
    ]
    assert long == []


def test_functions_are_short() -> None:
    long = [
        f"{where(path, node.lineno)}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in shipped()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= 60
    ]
    assert long == []


def test_class_names_say_what_the_class_is() -> None:
    vague = re.compile(r"(Manager|Helper|Util|Utilitie|Handler|Data)s?(?![a-z])")
    named = [
        f"{where(path, node.lineno)}: {node.name}"
        for path in python_files()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ClassDef) and vague.search(node.name)
        # A framework's base class may force one.
        if not any(vague.search(ast.unparse(base)) for base in node.bases)
    ]
    assert named == []


def test_nothing_is_unpickled_or_evaluated() -> None:
    modules_refused = {"cPickle", "cloudpickle", "dill", "jsonpickle", "marshal", "pickle", "shelve"}
    calls_refused = {"eval", "exec", "__import__"}
    found = [
        where(path, line)
        for path in shipped()
        for line, name in imported(path)
        if name.partition(".")[0] in modules_refused
    ]
    found += [
        where(path, node.lineno)
        for path in shipped()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in calls_refused
    ]
    assert found == []


def spelled(*parts: str) -> str:
    """A text put together at run time, so that the file that forbids it does not hold it."""
    return "".join(parts)


FORBIDDEN = {
    "a path of one machine": "|".join(
        [
            spelled(r"(?<![\w.])/(?:ro", r"ot|ho", r"me|Us", r"ers|wo", r"rk|workspace)/\w"),
            spelled(r"(?<![\w.])/t", r"mp/\w"),
            spelled(r"\b[A-Z]:\\\\?Us", r"ers\b"),
            spelled(r"\.py", r"env\b"),
        ]
    ),
    "a registry's host": "|".join(
        [
            spelled(r"py", r"pi\.org"),
            spelled(r"python", r"hosted\.org"),
            spelled(r"registry\.np", r"mjs"),
            spelled(r"(?:extra-)?index", r"-url\b[ =]"),
            spelled(r"https?://\S+/sim", r"ple\b"),
        ]
    ),
    "unfinished work": spelled(r"\b(?:TO", r"DO|FIX", r"ME|XX", r"X)\b"),
    "an ignore without a code": "|".join(
        [
            spelled(r"#\s*type:\s*ign", r"ore(?!\[[a-z])"),
            spelled(r"#\s*no", r"qa(?!:\s*[A-Z]+\d)"),
            spelled(r"#\s*ru", r"ff:\s*no", r"qa(?!:\s*[A-Z]+\d)"),
        ]
    ),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{where(path, number)}: {match.group()}"
        for path in repository_files()
        for number, line in enumerate(lines(path), 1)
        if (match := pattern.search(line))
    ]
    assert found == []


def test_the_patterns_find_what_they_forbid() -> None:
    samples = {
        "a path of one machine": ["open('/ro" + "ot/x')", "C:\\Us" + "ers", "see /t" + "mp/log"],
        "a registry's host": ["py" + "pi.org", "--index" + "-url https", "https://a.b/sim" + "ple"],
        "unfinished work": ["# TO" + "DO later", "FIX" + "ME"],
        "an ignore without a code": ["x  # type: ign" + "ore", "# no" + "qa", "# ruff: no" + "qa"],
    }
    for what, texts in samples.items():
        assert [text for text in texts if not re.search(FORBIDDEN[what], text)] == []
    harmless = (
        "a/home/page x/root/y tmp/x # type: ign" + "ore[misc] # no" + "qa: E501 # ruff: no" + "qa: S101"
    )
    assert [what for what, pattern in FORBIDDEN.items() if re.search(pattern, harmless)] == []


def test_constraints_hold_versions_and_hashes_and_no_address() -> None:
    files = sorted((ROOT / "constraints").glob("*.txt"))
    assert [path.name for path in files] == [
        *("build.txt", "docs.txt", "frameworks.txt", "lint.txt", "models.txt", "test.txt")
    ]
    allowed = re.compile(
        r"#.*|[a-z0-9-]+==[\w.!+]+(?: ; [^/@\\]+)? \\|    --hash=sha256:[0-9a-f]{64}(?: \\)?"
    )
    odd = [
        f"{where(path, number)}: {line}"
        for path in files
        for number, line in enumerate(lines(path), 1)
        if not allowed.fullmatch(line)
    ]
    assert odd == []


def test_the_lock_file_that_names_hosts_is_not_committed() -> None:
    assert [path for path in repository_files() if path.name == "uv.lock"] == []


def test_one_version_everywhere() -> None:
    installed = importlib.metadata.version("llmbuffer")
    declared = re.search(
        r'^version = "(.+)"$', (ROOT / "core/pyproject.toml").read_text("utf-8"), re.MULTILINE
    )
    assert declared is not None
    assert llmbuffer.__version__ == installed == declared.group(1)
    assert f"## [{installed}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_core_needs_four_distributions() -> None:
    required = importlib.metadata.requires("llmbuffer") or []
    base = [re.split(r"[^\w-]", line)[0] for line in required if "extra ==" not in line]
    assert sorted(base) == ["anyio", "msgspec", "pluggy", "tiktoken"]


def test_every_requirement_has_a_lower_bound() -> None:
    unbounded = [
        line for line in importlib.metadata.requires("llmbuffer") or [] if ">=" not in line.split(";")[0]
    ]
    assert unbounded == []


def test_the_entry_points_lead_somewhere() -> None:
    for point in importlib.metadata.distribution("llmbuffer").entry_points:
        assert point.load() is not None


def test_the_distribution_carries_the_licence_of_the_repository() -> None:
    assert (ROOT / "core/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_ci_runs_the_test_command_of_the_readme() -> None:
    command = [line for line in lines(ROOT / "README.md") if line.endswith("/pytest")]
    assert len(command) == 1
    assert f'"{command[0]}"' in (ROOT / ".ci/run").read_text("utf-8")


def test_adapters_import_only_what_is_public() -> None:
    """Rooms and names of the core that begin with an underscore, and its private attributes, are its own business."""
    found = [
        where(path, line)
        for path in sorted((ROOT / "integrations").glob("*/src/**/*.py"))
        for line, name in imported(path)
        if name.startswith("llmbuffer.") and any(part.startswith("_") for part in name.split("."))
    ]
    assert found == []


def test_every_plugin_of_ours_loads_no_framework() -> None:
    sources = [str(path) for path in sorted((ROOT / "integrations").glob("*/src"))]
    program = """
import sys
sys.path[:0] = sys.argv[1].split("|")
import llmbuffer_autogen.plugin, llmbuffer_crewai.plugin, llmbuffer_langchain.plugin, llmbuffer_llamaindex.plugin
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""
    command = [sys.executable, "-c", program, "|".join(sources)]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert len(sources) == 4
    assert not loaded & set(HEAVY), "a plugin module is imported by every look-up"
