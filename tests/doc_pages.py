"""The pages of README and docs: their snippets, what the snippets print, their links and anchors."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from llmbuffer.simulate import ProviderServer

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_SDKS = ("openai", "anthropic", "google")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


class Fence(NamedTuple):
    """A fenced block: its info string, such as ``python`` or ``text printed``, and what stands in it."""

    info: str
    text: str


def pages() -> list[Path]:
    """README, the pages that go with it, and all of docs/."""
    beside = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    folders = sorted([*ROOT.glob("integrations/*/README.md"), ROOT / "notebooks/README.md"])
    return [*beside, *folders, *sorted(DOCS.rglob("*.md"))]


def named(page: Path) -> str:
    """A page by its path in the repository."""
    return str(page.relative_to(ROOT))


def fences(page: Path) -> list[Fence]:
    return [Fence(*found) for found in FENCE.findall(page.read_text("utf-8"))]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """What `page.md#…` may name: headings, as hosts that show Markdown spell them."""
    heads = re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", head).replace("`", "").lower() for head in heads)
    return {re.sub(r"[^\w\- ]", "", head).strip().replace(" ", "-") for head in plain}


def same_words(printed: str, shown: str, near: float = 0.15) -> bool:
    """Whether what is shown is how the other one begins, but for numbers that differ by no more than a share.

    Which encoding is at hand decides how tokens are counted.
    """
    lines = shown.splitlines()
    printed = "\n".join(printed.splitlines()[: len(lines)])
    if NUMBER.sub("#", printed).split() != NUMBER.sub("#", shown).split():
        return False
    pairs = zip(_numbers(printed), _numbers(shown), strict=True)
    return all(abs(one - other) <= near * max(abs(one), abs(other)) for one, other in pairs)


def _numbers(text: str) -> list[float]:
    return [float(found.replace(",", "")) for found in NUMBER.findall(text)]


def run(page: Path, infos: tuple[str, ...] = ("python",)) -> dict[str, Any]:
    """Run the snippets of a page in one namespace, and compare what they print with what the page shows.

    Raises ``AssertionError`` where a ``text printed`` block is not what the snippet before it printed.
    """
    namespace: dict[str, Any] = {"__name__": "snippets"}
    try:
        _run(page, infos, namespace)
    finally:
        for client in _clients(namespace):
            client.close()
    return namespace


def _run(page: Path, infos: tuple[str, ...], namespace: dict[str, Any]) -> None:
    printed = ""
    for number, fence in enumerate(fences(page)):
        if fence.info in infos:
            out = StringIO()
            with redirect_stdout(out):
                exec(compile(fence.text, f"{page.name}, block {number}", "exec"), namespace)
            printed = out.getvalue()
            sys.stdout.write(printed)
        elif fence.info == "text printed":
            assert same_words(printed, fence.text), f"{page.name} shows {fence.text!r}, but it is {printed!r}"


def _clients(namespace: dict[str, Any]) -> list[Any]:
    """SDK clients that the snippets left open, those of sessions among them."""
    held = [each for value in namespace.values() for each in (value, getattr(value, "client", None))]
    found: list[Any] = [each for each in held if type(each).__module__.partition(".")[0] in _SDKS]
    closing = [each for each in found if callable(getattr(type(each), "close", None))]
    return [each for each in closing if not inspect.iscoroutinefunction(each.close)]


@contextmanager
def provider() -> Iterator[ProviderServer]:
    """A simulated provider, and an environment that leads every SDK to it."""
    with ProviderServer() as server:
        wanted = {
            "OPENAI_BASE_URL": server.openai_url,
            "OPENAI_API_BASE": server.openai_url,
            "ANTHROPIC_BASE_URL": server.anthropic_url,
            "ANTHROPIC_API_URL": server.anthropic_url,
            "GOOGLE_GEMINI_BASE_URL": server.gemini_url,
            **{f"{name}_API_KEY": "any" for name in ("OPENAI", "ANTHROPIC", "GOOGLE", "GEMINI")},
            "CREWAI_DISABLE_TELEMETRY": "true",
            "CREWAI_TRACING_ENABLED": "false",
            "OTEL_SDK_DISABLED": "true",
            "LANGSMITH_TRACING": "false",
            "DO_NOT_TRACK": "1",
        }
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield server
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                os.environ.update({} if value is None else {name: value})


if __name__ == "__main__":  # the snippets of a framework's page, in a process of their own
    with provider():
        run(Path(sys.argv[1]), ("python", "python framework"))
