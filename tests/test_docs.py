"""Every Python snippet of README and docs runs, against a provider on the loopback interface; every link leads somewhere."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
from tests.doc_pages import DOCS, LINK, ROOT, anchors, fences, named, pages, prose, provider, run, same_words
from tests.loopback import Said, loopback

from llmbuffer import get_dialect
from llmbuffer.demo import run_demo
from llmbuffer.replay import replay, sample_recordings
from llmbuffer.tokens import EstimateCounter

README = ROOT / "README.md"
PAGES = pages()
# What has to be there for the snippets of a framework's page, whose fences say `python framework`.
FRAMEWORKS = {
    "langchain": ("langchain", "llmbuffer_langchain"),
    "crewai": ("crewai", "llmbuffer_crewai"),
    "autogen": ("autogen", "autogen_agentchat", "llmbuffer_autogen"),
    "llamaindex": ("llama_index", "llmbuffer_llamaindex"),
}


def need_what_is_imported(page: Path) -> None:
    """Skip a page without the packages that its snippets import; where CI runs, they have to be there."""
    nodes = [
        node for fence in fences(page) if fence.info == "python" for node in ast.walk(ast.parse(fence.text))
    ]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    names += ["xllamacpp"] if "llmbuffer.engine" in names else []
    missing = {name for name in names if importlib.util.find_spec(name.partition(".")[0]) is None}
    if missing and "CI" not in os.environ:
        pytest.skip(f"not installed: {sorted(missing)}")


def with_fences(info: str) -> list[Path]:
    return [page for page in PAGES if any(fence.info == info for fence in fences(page))]


@pytest.mark.parametrize("page", [page for page in with_fences("python") if page != README], ids=named)
def test_every_snippet_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_what_is_imported(page)
    monkeypatch.chdir(tmp_path)
    with provider():
        namespace = run(page)
    for name, value in namespace.items():
        if name.startswith("test_"):
            with provider() as server:
                value(server)


def test_the_snippets_of_the_readme_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call = Said(calls=(("call_1", "track", '{"number": "7"}'),))
    answers = [
        Said("In Lyon."),
        Said("Tomorrow."),
        call,
        Said("It is in Lyon."),
        Said("A parcel, on its way."),
    ]
    with loopback(answers) as server:
        for name, suffix in (("OPENAI", "/v1"), ("ANTHROPIC", "")):
            monkeypatch.setenv(f"{name}_BASE_URL", server.url + suffix)
            monkeypatch.setenv(f"{name}_API_KEY", "none")
        run(README)
    printed = capsys.readouterr().out
    assert "It is in Lyon. | A parcel, on its way." in printed
    _same_sentence(printed, README.read_text("utf-8"))
    assert len(server.bodies) == len(answers)


@pytest.mark.parametrize("page", with_fences("python framework"), ids=named)
def test_snippets_of_a_framework_run_where_it_is_installed(page: Path, tmp_path: Path) -> None:
    folder = page.parent.name if page.name == "README.md" else page.stem
    framework = "langchain" if page == README else folder
    needed = FRAMEWORKS.get(framework, ())
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    for number, fence in enumerate(fences(page)):
        if fence.info == "python framework":
            compile(fence.text, f"{page.name}, block {number}", "exec")
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "tests.doc_pages", str(page)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def _same_sentence(printed: str, shown: str) -> None:
    """The break that the README shows is the one that its snippet prints; how many tokens, the encoding at hand decides."""
    sentence = re.compile(
        r"^(volatile-in-prefix at .*): ([\d,]+) tokens billed again \(\S+ USD\); (.*)$", re.MULTILINE
    )
    [[place, tokens, fix]], [[told_place, told_tokens, told_fix]] = (
        sentence.findall(printed),
        sentence.findall(shown),
    )
    assert (place, fix) == (told_place, told_fix)
    assert int(tokens.replace(",", "")) == pytest.approx(int(told_tokens.replace(",", "")), rel=0.05)


def test_printed_text_is_compared_but_for_small_differences_of_numbers() -> None:
    assert same_words("read 2,304 of 2,429 tokens\n", "read 2304 of 2,431 tokens")
    assert not same_words("read 0 of 2,429 tokens", "read 2304 of 2,431 tokens")
    assert not same_words("wrote 2304 of 2,431 tokens", "read 2304 of 2,431 tokens")
    assert not same_words("", "read")


def test_the_figures_of_the_readme_are_those_of_the_sample() -> None:
    rows = re.findall(
        r"^\| (\S+) \| (default|buffered) \| (\S+) \| (\S+) \| (\S+) \|$",
        README.read_text("utf-8"),
        re.MULTILINE,
    )
    assert len(rows) == 6
    for model, layout, *shown in rows:
        total = replay(
            sample_recordings(),
            dialect="anthropic" if model.startswith("claude") else "openai",
            model=model,
            layout=layout,
            noise=("clock", "retrieval"),
            seed=7,
            counter=EstimateCounter(),
        ).total
        assert total.cost_usd is not None
        assert shown == [f"{total.hit_ratio:.4f}", f"{total.share_of_oracle:.4f}", f"{total.cost_usd:.2f}"], (
            model
        )


def test_the_figures_of_the_demo_are_near_those_of_a_simulated_run() -> None:
    """The README shows what an engine computed. The simulation lacks the framing of messages: 8 % of the tokens.

    Costs depend on which encoding is at hand to count with.
    """
    text = README.read_text("utf-8")
    found = run_demo(engine="simulate")
    for row, near in (("prompt tokens computed", 0.1), ("hit ratio", 0.03)):
        [cells] = re.findall(rf"^\| {row} \| (.+) \|$", text, re.MULTILINE)
        shown = [float(cell.replace(",", "")) for cell in cells.split(" | ")]
        sums = [arm.sums for arm in found.arms.values()]
        computed = [each.computed_tokens if "tokens" in row else each.hit_ratio for each in sums]
        assert shown == pytest.approx(computed, rel=near), row
    for name in ("Anthropic", "OpenAI"):
        [cells] = re.findall(rf"^\| USD for 100 sessions, {name} .*?\| (.+) \|$", text, re.MULTILINE)
        paid = [100 * arm.cost_usd[name.lower()] for arm in found.arms.values()]
        assert [float(cell) for cell in cells.split(" | ")] == pytest.approx(paid, rel=0.15)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        led = page if not path else (page.parent / path).resolve()
        assert led.exists(), f"{named(page)} links to {target}"
        if anchor:
            assert anchor in anchors(led), f"{named(page)} links to {target}: there is no such heading"


def test_every_page_stands_in_the_navigation() -> None:
    listed = {DOCS / "index.md"}
    for page in DOCS.rglob("*.md"):
        for fence in fences(page):
            if fence.info == "{toctree}":
                entries = [line for line in fence.text.splitlines() if line and not line.startswith(":")]
                listed |= {(page.parent / f"{entry}.md").resolve() for entry in entries}
    assert sorted(map(named, set(DOCS.rglob("*.md")) - listed)) == []
    assert sorted(map(str, listed - set(DOCS.rglob("*.md")))) == []


def test_the_pictures_of_the_explanation_are_drawn_anew() -> None:
    found = run_path(str(DOCS / "pictures.py"))["pictures"]()
    assert sorted(found) == sorted(
        str(path.relative_to(DOCS)) for path in (DOCS / "explanation").glob("*.svg")
    )
    for path, picture in found.items():
        assert (DOCS / path).read_text("utf-8") == picture, f"{path}: run `python docs/pictures.py`"


def test_what_caches_cost_is_what_the_rules_say() -> None:
    text = (DOCS / "explanation/what-providers-cache.md").read_text("utf-8")
    rows = re.findall(
        r"^\| ([\w.-]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]*) ?(?:\((\d+) h\))? ?\| (\d+) (min|h) \| ([\d,]+)",
        text,
        re.MULTILINE,
    )
    assert len(rows) == 7
    makers = {"gpt": "openai", "claude": "anthropic", "gemini": "gemini", "deepseek": "deepseek"}
    for model, read, write, long, hours, ttl, unit, least in rows:
        rules = get_dialect(makers[model.partition("-")[0]]).bind(model).rules
        assert float(read) == pytest.approx(rules.read_multiplier, abs=0.001), model
        assert (float(write), int(least.replace(",", ""))) == (rules.write_multiplier, rules.min_tokens), (
            model
        )
        assert int(ttl) * {"min": 60, "h": 3600}[unit] == rules.ttl, model
        if long:
            assert (float(long), int(hours) * 3600) == (rules.write_long_multiplier, rules.ttl_long), model


def test_commands_that_pages_name_exist() -> None:
    from typer.main import get_command

    from llmbuffer.cli.app import app

    known: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    spoken = re.compile(r"(?:^|`)(?:\.venv/bin/)?llmbuffer ([a-z][\w-]*)", re.MULTILINE)
    for page in PAGES:
        blocks = [fence.text for fence in fences(page) if fence.info in ("", "sh", "console", "text")]
        spans = re.findall(r"`llmbuffer [^`]+`", prose(page))
        for name in spoken.findall("\n".join([*blocks, *spans])):
            assert name in known, f"{named(page)} names `llmbuffer {name}`"
    table = (DOCS / "reference/command-line.md").read_text("utf-8")
    assert sorted(re.findall(r"^\| `llmbuffer (\S+)` \|", table, re.MULTILINE)) == sorted(known)
