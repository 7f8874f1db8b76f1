"""The report in a real browser: opened, looked at, clicked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chromium import Page, chromium
from tests.report_runs import HOSTILE, desk, served_log

from llmbuffer.report import Bar, Report, read_report, report
from llmbuffer.usage import Usage

SIZES = [(1000, False), (1000, True), (360, False), (360, True)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def log_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    served_log(folder / "requests.jsonl")
    path = folder / "log.html"
    path.write_text(read_report(folder / "requests.jsonl").html(), "utf-8")
    return path


@pytest.fixture(scope="module")
def desk_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "desk.html"
    names = tuple(name.encode("utf-8", "replace").decode() for name in HOSTILE[:4])
    path.write_text(report(desk(forks=4, names=names), title=HOSTILE[0]).html(), "utf-8")
    return path


@pytest.fixture(scope="module")
def long_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    bars = tuple(
        Bar(number=number, name=HOSTILE[0], usage=Usage(1000 + number, 5, 900)) for number in range(1, 10_001)
    )
    path = tmp_path_factory.mktemp("report") / "long.html"
    path.write_text(Report(title="long", bars=bars).html(), "utf-8")
    return path


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_it_opens_without_network_and_without_a_complaint(
    page: Page, desk_page: Path, width: int, dark: bool
) -> None:
    page.open(desk_page, width=width, dark=dark)
    assert page.requested == [desk_page.as_uri()]
    assert page.complaints == []
    assert page.run("document.title").startswith("</script>")
    assert page.run("document.documentElement.scrollWidth") <= width
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
    assert page.run("document.querySelectorAll('svg.lb').length") == 3


def test_texts_stand_out_from_the_paper_in_both_themes(page: Page, log_page: Path) -> None:
    """At least 4.5 to 1, as WCAG 2.1 asks for text."""
    script = """(() => {
        const light = (colour) => {
            const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map((each) => {
                const part = each / 255;
                return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
            });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const back = (at) => {
            for (; at; at = at.parentElement) {
                const colour = getComputedStyle(at).backgroundColor;
                if (!colour.endsWith(", 0)")) return colour;
            }
        };
        return [...document.querySelectorAll("h1, p, dt, dd, small, summary, li, button, footer p, svg text")].map((at) => {
            const style = getComputedStyle(at);
            const inks = at.tagName === "text" ? style.fill : style.color;
            const pair = [light(inks), light(back(at))].sort((a, b) => b - a);
            return (pair[0] + 0.05) / (pair[1] + 0.05);
        });
    })()"""
    for dark in (False, True):
        page.open(log_page, dark=dark)
        ratios = page.run(script)
        assert len(ratios) > 30
        assert min(ratios) >= 4.5


def test_a_click_on_a_break_opens_what_to_do(page: Page, log_page: Path) -> None:
    page.open(log_page)
    assert page.run("document.getElementById('b13').open") is False
    page.click("a.lb-mark[href='#b13'] circle")
    assert page.run("document.getElementById('b13').open") is True
    told = page.run("document.getElementById('b13').innerText")
    assert "tools-reordered at tools[0]" in told
    assert "give the tools in one fixed order" in told
    assert page.run("document.activeElement.parentElement.id") == "b13"
    box = page.run(
        "(() => { const b = document.getElementById('b13').getBoundingClientRect(); return [b.top, b.bottom]; })()"
    )
    assert box[1] > 0
    assert box[0] < 1200
    assert page.complaints == []


def test_the_keyboard_goes_from_break_to_break_and_opens_one(page: Page, log_page: Path) -> None:
    page.open(log_page)
    page.run("document.querySelector('a.lb-mark').focus()")
    assert page.run("document.activeElement.getAttribute('href')") == "#b9"
    page.press("ArrowRight")
    assert page.run("document.activeElement.getAttribute('href')") == "#b13"
    page.press("End")
    assert page.run("document.activeElement.getAttribute('href')") == "#b21"
    page.press("Enter")
    assert page.run("document.getElementById('b21').open") is True
    stops = page.run("document.querySelectorAll('svg.lb a[tabindex=\"0\"]').length")
    assert stops == 2


def test_what_a_screen_reader_hears_names_the_breaks(page: Page, log_page: Path) -> None:
    page.open(log_page)
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    names = [node.get("name", {}).get("value", "") for node in tree if not node["ignored"]]
    assert any(name.startswith("Break at request 13") and "tools-reordered" in name for name in names)
    roles = {node["role"]["value"] for node in tree if not node["ignored"]}
    assert {"main", "heading", "button", "link"} <= roles


def test_a_click_on_a_column_opens_its_row(page: Page, log_page: Path) -> None:
    page.open(log_page)
    page.click("a.lb-bar[href='#r5'] > path")
    assert page.run("document.querySelector('#requests').closest('details').open") is True
    assert page.run("document.querySelector('tr.here').id") == "r5"


def test_the_switch_changes_the_colours(page: Page, log_page: Path) -> None:
    page.open(log_page, dark=True)
    assert page.run("document.getElementById('theme').textContent") == "Light colours"
    page.click("#theme")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("document.getElementById('theme').textContent") == "Dark colours"


def test_ten_thousand_requests_are_paged(page: Page, long_page: Path) -> None:
    page.open(long_page)
    assert page.complaints == []
    page.run("document.querySelector('#requests').closest('details').open = true")
    assert page.run("document.querySelector('#requests').tBodies[0].rows.length") == 200
    assert page.run("document.querySelector('.pager span').textContent") == "1 to 200 of 10,000"
    page.click(".pager button:last-child")
    assert page.run("document.querySelector('#requests').tBodies[0].rows[0].id") == "r201"
    page.click("a.lb-bar:last-of-type > path")
    row = page.run("document.querySelector('tr.here').id")
    assert int(row[1:]) > 9_900
    assert page.run("document.querySelector('tr.here').textContent").count("</script>") == 1


def test_without_its_script_the_page_still_tells(page: Page, log_page: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.html"
    text = log_page.read_text("utf-8")
    start = text.rindex("<script>")
    bare.write_text(text[:start] + text[text.rindex("</script>") + 9 :], "utf-8")
    page.open(bare)
    assert page.run("document.querySelector('#requests').tBodies[0].rows.length") == 24
    assert page.run("document.getElementById('theme').hidden") is True
    assert page.run("document.querySelectorAll('details.break').length") == 4
