"""Every Python snippet of README and docs runs, against a loopback server where it talks to a provider."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.loopback import Said, loopback

from llmbuffer.demo import run_demo
from llmbuffer.replay import replay, sample_recordings
from llmbuffer.tokens import EstimateCounter

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)")


def snippets(page: Path) -> list[str]:
    return SNIPPET.findall(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=lambda page: page.name)
def test_every_snippet_runs(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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
        for provider, suffix in (("OPENAI", "/v1"), ("ANTHROPIC", "")):
            monkeypatch.setenv(f"{provider}_BASE_URL", server.url + suffix)
            monkeypatch.setenv(f"{provider}_API_KEY", "none")
        namespace: dict[str, Any] = {}
        for number, source in enumerate(snippets(page)):
            exec(compile(source, f"{page.name}, snippet {number}", "exec"), namespace)
    if page.name == "README.md":
        printed = capsys.readouterr().out
        assert "It is in Lyon. | A parcel, on its way." in printed
        _same_sentence(printed, page.read_text("utf-8"))
        assert len(server.bodies) == len(answers)


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


def test_the_figures_of_the_readme_are_those_of_the_sample() -> None:
    rows = re.findall(
        r"^\| (\S+) \| (default|buffered) \| (\S+) \| (\S+) \| (\S+) \|$",
        PAGES[0].read_text("utf-8"),
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
    text = PAGES[0].read_text("utf-8")
    found = run_demo(engine="simulate")
    for row, near in (("prompt tokens computed", 0.1), ("hit ratio", 0.03)):
        [cells] = re.findall(rf"^\| {row} \| (.+) \|$", text, re.MULTILINE)
        shown = [float(cell.replace(",", "")) for cell in cells.split(" | ")]
        sums = [arm.sums for arm in found.arms.values()]
        computed = [each.computed_tokens if "tokens" in row else each.hit_ratio for each in sums]
        assert shown == pytest.approx(computed, rel=near), row
    for provider in ("Anthropic", "OpenAI"):
        [cells] = re.findall(rf"^\| USD for 100 sessions, {provider} .*?\| (.+) \|$", text, re.MULTILINE)
        paid = [100 * arm.cost_usd[provider.lower()] for arm in found.arms.values()]
        assert [float(cell) for cell in cells.split(" | ")] == pytest.approx(paid, rel=0.15)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
