"""Reports: of sessions, logs and documents, and the page that shows them."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report_runs import HOSTILE, NOON, SECRET, desk, faulty_bodies, served_log
from typer.testing import CliRunner

from llmbuffer import Session, StableContext
from llmbuffer.breaks import CacheBreak
from llmbuffer.capture.record import Captured
from llmbuffer.cli.app import app
from llmbuffer.errors import ReportError
from llmbuffer.fanout import Result, Results
from llmbuffer.graph import GraphRun, TaskResult
from llmbuffer.pictures import plain, safe
from llmbuffer.prices import cost as cost_of
from llmbuffer.prices import price_for
from llmbuffer.report import Bar, Branch, LineReader, Report, read_report, report
from llmbuffer.report.lines import scaled
from llmbuffer.report.model import priced
from llmbuffer.report.svg import COLUMNS, LABELS, NODES, nested
from llmbuffer.usage import Usage

FAULTS = {9: "system-changed", 13: "tools-reordered", 17: "expired", 21: "history-truncated"}
VOID = {"meta", "rect", "path", "circle", "img", "br"}


class Parsed(HTMLParser):
    """The elements of a page, and whether each that was opened is closed in its turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def ids(self) -> list[str]:
        return [name for _, attributes in self.seen if (name := attributes.get("id"))]

    def links(self) -> list[str]:
        return [link for tag, attributes in self.seen if tag == "a" and (link := attributes.get("href"))]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logs") / "requests.jsonl"
    served_log(path)
    return path


@pytest.fixture(scope="module")
def many() -> Report:
    """Ten thousand requests of two hundred branches, each twentieth one a break."""
    branches = tuple(
        Branch(id=f"b{number}", name=f"worker-{number}", parent="b0" if number else None)
        for number in range(200)
    )
    bars = []
    price = price_for("claude-sonnet-5.5")
    for number in range(1, 10_001):
        usage = Usage(20_000 + number, 300, 18_000, 1_500)
        broken = (
            CacheBreak(
                "tools-reordered", "tools", 5_000, 1.0, 0.001, f"tools[{number % 30}]", fix="keep them"
            )
            if number % 20 == 0
            else None
        )
        bar = Bar(
            number=number,
            at=NOON + number,
            branch=f"b{number % 200}",
            model="claude-sonnet-5.5",
            usage=usage,
            cache_break=broken,
        )
        bars.append(priced(bar, price))
    return Report(title="many", bars=tuple(bars), branches=branches)


# Sessions


def test_a_session_and_its_forks_are_told_as_their_ledgers_tell() -> None:
    sessions = desk()
    found = report(sessions)
    ledgers = [session.ledger for session in sessions]
    assert found.sums.requests == sum(ledger.requests for ledger in ledgers) == len(found.bars)
    assert found.sums.usage == sum((ledger.usage for ledger in ledgers), Usage())
    assert found.sums.cost == pytest.approx(sum(ledger.cost or 0 for ledger in ledgers))
    assert [bar.number for bar in found.bars] == list(range(1, len(found.bars) + 1))
    assert [bar.at for bar in found.bars] == sorted(bar.at or 0 for bar in found.bars)
    depths = {branch.name: depth for depth, branch in nested(found.branches)}
    assert depths == {"coordinator": 0, "worker-0": 1, "worker-1": 1, "worker-2": 1, "deeper": 2}


def test_stretches_name_the_segments_in_prompt_order_and_sum_to_the_input() -> None:
    first, *_, last = report(desk(forks=0)).bars
    assert [(each.section, each.name) for each in first.stretches][:3] == [
        ("tools", "tools"),
        ("system", "policy"),
        ("system", "shop"),
    ]
    assert [each.name for each in last.stretches][3:5] == ["history", "new"]
    for bar in (first, last):
        assert sum(each.tokens for each in bar.stretches) == bar.tokens
    policy = {each.name: each.tokens for each in last.stretches}["policy"]
    assert policy == pytest.approx({each.name: each.tokens for each in first.stretches}["policy"], abs=2)


def test_what_a_fork_inherits_is_history() -> None:
    sessions = desk()
    fork = next(bar for bar in report(sessions).bars if bar.name == "worker-0")
    told = {each.name: each.tokens for each in fork.stretches}
    assert told["history"] > 5 * told["new"]


def test_planned_breaks_are_shown_and_are_no_alarms() -> None:
    session = desk(requests=3, forks=0)[0]
    session.thaw("another tool")
    found = report(session)
    assert [bar.kind for bar in found.bars] == ["request"] * 3 + ["thawed"]
    assert found.breaks == ()
    assert found.sums.requests == 3
    assert "another tool" in found.html()


def test_ledgers_results_and_runs_are_taken_too() -> None:
    parent, worker, *_ = desk(forks=1)
    assert report(parent.ledger).sums.usage == parent.ledger.usage
    results = Results([Result(name="w", session=worker, error=ValueError("x"))])
    told = report(results)
    assert [branch.name for branch in told.branches] == ["session", "w"]
    assert told.sums.requests == worker.ledger.requests
    run = GraphRun(
        "r1",
        {
            "draft": TaskResult(key="draft", status="finished", session=worker),
            "sum": TaskResult(key="sum", status="kept"),
        },
    )
    assert report(run).title == "run r1"
    assert report(run).sums.usage == worker.ledger.usage


@pytest.mark.parametrize("what", [None, "a text", {"messages": []}, [], [1], 7])
def test_what_is_no_run_is_refused(what: Any) -> None:
    with pytest.raises(ReportError, match="report"):
        report(what)


def test_a_session_that_sent_nothing_has_a_page() -> None:
    found = report(Session(StableContext("gpt-5.5")))
    assert "Nothing was sent" in found.html()
    assert "0 requests" in found._repr_html_()
    assert found.to_json()["hit_ratio"] == 0.0


# Logs


def test_the_faults_of_a_served_program_are_found_where_they_are(log: Path) -> None:
    found = read_report(log)
    assert {bar.number: bar.alarm.cause for bar in found.breaks if bar.alarm} == FAULTS
    assert found.measured is False
    assert found.skipped == 0
    assert found.sums.requests == 24
    names = [each.name for each in found.bars[5].stretches]
    assert names == ["tools", "system[0]", "history", "new user"]
    for bar in found.bars:
        assert sum(each.tokens for each in bar.stretches) == bar.tokens
        assert bar.cost == pytest.approx(cost_of(bar.usage, price_for(bar.model)))  # type: ignore[arg-type]  # both known
        assert bar.ceiling_cost is not None
        assert bar.fresh_cost is not None
        assert bar.ceiling_cost <= bar.cost  # type: ignore[operator]  # it has a price


def test_a_log_without_bodies_tells_what_it_names_itself(tmp_path: Path) -> None:
    path = tmp_path / "bare.jsonl"
    served_log(path, bodies=False)
    found = read_report(path)
    assert {bar.number: bar.alarm.cause for bar in found.breaks if bar.alarm} == {17: "expired"}
    assert not any(bar.stretches for bar in found.bars)
    assert "no bodies" in found.html()


def test_a_captured_log_is_read_in_the_order_of_sending(tmp_path: Path) -> None:
    path = tmp_path / "captured.jsonl"
    usage = Usage(9_000, 10, 8_990)
    lines = [
        Captured(
            at=at,
            path="/v1/messages",
            wire="anthropic",
            dialect="anthropic",
            model=body["model"],
            status=200,
            usage=usage,
            agent="writer",
            body=body,
        )
        for at, body in faulty_bodies(6)
    ]
    broken = [b'{"at": 1', b"[1]", b'"text"', b'{"at": 2, "model": "m", "usage": {"input_tokens": -5}}']
    path.write_bytes(b"\n".join([*map(msgspec.json.encode, reversed(lines)), *broken]) + b"\n")
    found = read_report(path)
    assert [bar.at for bar in found.bars] == [line.at for line in lines]
    assert found.skipped == len(broken)
    assert {bar.branch for bar in found.bars} == {"writer"}
    assert found.measured is None
    assert found.breaks == ()


def test_a_redacted_log_shows_the_same_breaks(tmp_path: Path) -> None:
    recorded = tmp_path / "recorded.jsonl"
    served_log(tmp_path / "served.jsonl", recorded=recorded)
    assert SECRET not in recorded.read_text("utf-8")
    found, served = read_report(recorded), read_report(tmp_path / "served.jsonl")
    assert {bar.number: bar.alarm.cause for bar in found.breaks if bar.alarm} == FAULTS
    assert [bar.lost for bar in found.bars] == pytest.approx([bar.lost for bar in served.bars], rel=0.01)
    assert found.sums.usage == served.sums.usage
    assert [len(bar.stretches) for bar in found.bars] == [len(bar.stretches) for bar in served.bars]
    assert SECRET not in found.html(show_text=True)


def test_pseudonyms_of_two_runs_are_not_compared() -> None:
    """A conversation that goes on in another process, whose recorder has another key, is no break."""
    reader = LineReader()

    def bar(at: float, salt: str, system: str) -> Bar:
        body = {
            "model": "gpt-5.6",
            "messages": [{"role": "system", "content": system * 600}, {"role": "user", "content": "a"}],
        }
        line = {
            "at": at,
            "model": "gpt-5.6",
            "salt": salt,
            "body": body,
            "usage": {"input_tokens": 3_000, "output_tokens": 1},
        }
        return reader.read(json.dumps(line).encode())

    assert bar(0.0, "one", "abcd ").cache_break is None
    assert bar(1.0, "two", "wxyz ").cache_break is None
    broken = bar(2.0, "two", "mnop ").cache_break
    assert broken is not None
    assert broken.cause == "system-changed"


def test_errors_and_unknown_models_are_shown_without_figures() -> None:
    reader = LineReader()
    refused = reader.read(
        b'{"at": 1, "model": "gpt-5.5", "status": 429, "error": "rate_limit", "usage": {"input_tokens": 0}}'
    )
    assert refused.note == "status 429, rate_limit"
    unknown = reader.read(b'{"at": 2, "model": "my-own", "status": 200, "usage": {"input_tokens": 10}}')
    assert (unknown.cost, unknown.fresh_cost, unknown.tokens) == (None, None, 10)
    lost = reader.read(b'{"at": 3, "model": "my-own", "status": 0, "error": "ConnectError"}')
    assert (lost.usage, lost.note) == (None, "ConnectError")


def test_conversations_of_one_agent_that_take_turns_are_told_apart() -> None:
    reader = LineReader()
    rules = "Be kind and brief. " * 600
    at, found = 0.0, []
    for turn in range(1, 5):
        for name in ("parcel", "refund"):
            at += 1
            told = [{"role": "user", "content": f"{name} {number} " * 50} for number in range(turn)]
            body = {"model": "gpt-5.5", "messages": [{"role": "system", "content": rules}, *told]}
            line = {"at": at, "model": "gpt-5.5", "agent": "desk", "status": 200, "body": body}
            usage = {"input_tokens": 3000 + 160 * turn, "cache_read_tokens": 2944 if turn > 1 else 0}
            found.append(reader.read(json.dumps({**line, "usage": usage}).encode()))
    assert [bar.alarm for bar in found if bar.alarm and bar.alarm.cause.startswith("history")] == []
    names = [tuple(each.name for each in bar.stretches) for bar in found[2:]]
    assert set(names) == {("messages[0].content", "history", "new user")}


def test_planned_breaks_stand_in_the_picture_beside_alarms() -> None:
    planned = CacheBreak("compacted", "messages", 500, 1.0)
    usage = Usage(1000, 0, 500)
    bars = (
        Bar(number=1, usage=usage, cache_break=planned),
        Bar(number=2, kind="thawed", note="thawed: a tool"),
        Bar(number=3, usage=usage),
    )
    found = Report(title="planned", bars=bars)
    assert (found.breaks, found.sums.lost, found.sums.requests) == ((), 0, 2)
    assert found.html().count('class="lb-planned"') == 2
    assert "Nothing: no request lost" in found.html()


def test_memory_is_bounded_whatever_the_length_of_the_log() -> None:
    reader = LineReader()
    for number in range(3000):
        reader.read(
            b'{"at": %d, "model": "m%d", "agent": "a%d", "usage": {"input_tokens": 10}}'
            % (number, number, number)
        )
    assert len(reader._lanes) <= 1024
    assert len(reader._known_prices) <= 1024


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"no json\n", b'{"some": "json"}', b"\xff\xfe\x00", b"[]\n", b"{\n"]
)
def test_a_file_without_requests_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd"
    path.write_bytes(content)
    with pytest.raises(ReportError, match=r"found no request|a JSON document"):
        read_report(path)


# Documents of commands


def test_the_documents_of_the_commands_are_read(tmp_path: Path) -> None:
    row = {
        "input_tokens": 4_000,
        "cache_read_tokens": 3_000,
        "cache_write_tokens": 500,
        "output_tokens": 10,
        "cost_usd": 0.25,
    }
    documents: dict[str, tuple[dict[str, Any], list[str]]] = {
        "fanout": ({"model": "gpt-5.6", "workers": [{"name": "a", "requests": 2, **row}, {"name": "b", "requests": 1, **row}]}, ["a", "b"]),
        "graph": ({"run_id": "7", "tasks": [{"key": "draft", "status": "failed", "error": f"ValueError: {SECRET}", "value": SECRET, "attempts": 2, **row}]}, ["draft"]),
        "replay": ({"model": "gpt-5.6", "dialect": "openai", "layout": "default", "rows": [{"source": "shop", "requests": 9, "ceiling": 3_500, **row}]}, ["shop"]),
    }  # fmt: skip
    for name, (document, names) in documents.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(document, indent=2), "utf-8")
        found = read_report(path)
        assert [bar.name for bar in found.bars] == names
        assert found.sums.usage.cache_read_tokens == 3_000 * len(names)
        assert found.sums.cost == 0.25 * len(names)
        assert SECRET not in found.html(show_text=True)
        assert SECRET not in json.dumps(found.to_json(show_text=True))
        assert Parsed(found.html()).open == []
    assert found.sums.ceiling == 3_500
    assert found.sums.requests == 9


# The page


def test_the_page_asks_for_nothing_and_allows_nothing_but_its_own(log: Path) -> None:
    text = read_report(log).html()
    parsed = Parsed(text)
    assert parsed.open == []
    assert not re.search(r"(?:src|href)=\"(?!#)", text)
    assert "http" not in text.replace("http-equiv", "")
    policy = next(attributes["content"] for tag, attributes in parsed.seen if attributes.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not any(
        name.startswith("on") or name == "style" for _, attributes in parsed.seen for name in attributes
    )


def test_every_link_of_the_page_leads_somewhere(log: Path) -> None:
    parsed = Parsed(read_report(log).html())
    ids = parsed.ids()
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in parsed.links()} <= set(ids)
    assert {f"b{number}" for number in FAULTS} <= set(ids)


def test_prompt_text_is_shown_only_when_asked_for(log: Path) -> None:
    found = read_report(log)
    assert "It is 2026" not in found.html()
    assert "It is 2026" not in json.dumps(found.to_json())
    assert "It is 2026" in found.html(show_text=True)
    assert SECRET not in found.html() + found._repr_html_() + repr(found) + json.dumps(found.to_json())
    assert SECRET not in report(desk()).html()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(name: str) -> None:
    broken = CacheBreak(
        "system-changed",
        "system",
        10,
        1.0,
        path=name,
        before=name,
        after=name,
        fix=name,
        also=(("expired", name),),
    )
    bars = tuple(
        Bar(
            number=number,
            branch=name,
            name=name,
            model=name,
            note=name,
            usage=Usage(1000, 0, 10),
            cache_break=broken,
        )
        for number in range(1, 260)
    )
    found = Report(
        title=name,
        source=name,
        bars=bars,
        branches=(Branch(id=name, name=name), Branch(id="x", name=name, parent=name)),
        notes=(name,),
    )
    for text in (found.html(show_text=True), found._repr_html_()):
        text.encode("utf-8")
        parsed = Parsed(text)
        assert parsed.open == []
        assert [tag for tag, _ in parsed.seen if tag == "img"] == []
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", text)
        assert not any(key.startswith("on") for _, attributes in parsed.seen for key in attributes)
    scripts = [attributes for tag, attributes in Parsed(found.html()).seen if tag == "script"]
    assert len(scripts) == 2


@given(st.text())
def test_any_text_can_be_shown(text: str) -> None:
    shown = plain(text)
    assert len(shown) <= 80
    shown.encode("utf-8")
    assert not re.search("[\x00-\x1f\u202a-\u202e\u2066-\u2069]", shown)
    assert not set('<>"') & set(safe(text))


@given(st.lists(st.integers(0, 10**6), max_size=8), st.integers(0, 10**7))
def test_scaled_stretches_sum_to_the_whole(weights: list[int], tokens: int) -> None:
    found = scaled([("messages", str(index), weight) for index, weight in enumerate(weights)], tokens)
    assert all(each.tokens >= 0 for each in found)
    assert sum(each.tokens for each in found) == (tokens if sum(weights) else 0)


@given(st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 9))))
def test_every_branch_is_drawn_once_whatever_its_parent(pairs: list[tuple[int, int | None]]) -> None:
    by_id = {
        str(own): Branch(id=str(own), parent=None if above is None else str(above)) for own, above in pairs
    }
    told = [branch.id for _, branch in nested(list(by_id.values()))]
    assert sorted(told) == sorted(by_id)


def test_ten_thousand_requests_make_a_page_of_bounded_size(many: Report) -> None:
    text = many.html()
    parsed = Parsed(text)
    things = len(many.bars) + len(many.breaks) + len(many.branches)
    assert len(text.encode()) <= 400_000 + 450 * things
    assert sum(attributes.get("class") == "lb-bar" for _, attributes in parsed.seen) <= COLUMNS
    assert len(parsed.seen) < 25_000
    rows = json.loads(text.partition('id="rows">')[2].partition("</script>")[0])
    assert {name: len(table["rows"]) for name, table in rows.items()} == {
        "requests": 10_000,
        "broken": 500,
        "money": 240,
    }
    assert rows["requests"]["ids"][-1] == "10000"
    assert f"and {200 - NODES} more" in text
    made = {f"{table['row']}{each}" for table in rows.values() for each in table["ids"]}
    assert {link[1:] for link in parsed.links()} <= {*parsed.ids(), *made}
    assert text.count('class="lb-cause"') <= LABELS


def test_sums_do_not_depend_on_the_drawing(many: Report) -> None:
    whole, parts = many.sums, list(many.by_branch())
    assert whole.breaks == 500
    assert whole.lost == 500 * 5_000
    assert sum((sums.usage for _, sums in parts), Usage()) == whole.usage
    assert whole.cost is not None
    assert whole.ceiling_cost == pytest.approx(whole.cost - 500 * 0.001)
    assert whole.fresh_cost is not None
    assert whole.fresh_cost > whole.cost


# The command


def test_the_command_prints_sums_and_writes_the_page(log: Path, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    page.write_text("older", "utf-8")
    done = CliRunner().invoke(app, ["report", str(log), "-o", str(page)])
    assert done.exit_code == 0, done.output
    assert "tools-reordered at tools[0]" in done.output
    assert Parsed(page.read_text("utf-8")).open == []
    found = CliRunner().invoke(app, ["report", str(log), "--json"])
    document = json.loads(found.stdout)
    assert (document["requests"], document["breaks"], document["measured"]) == (24, 4, False)
    assert [row["break"]["cause"] for row in document["rows"] if row["break"]] == list(FAULTS.values())
    assert "before" not in json.dumps(document["rows"])
    shown = CliRunner().invoke(app, ["report", str(log), "--json", "--show-text"])
    assert "It is 2026" in shown.stdout


@pytest.mark.parametrize("arguments", [["missing.jsonl"], ["{log}", "-o", "no/such/folder/x.html"]])
def test_the_command_says_what_is_wrong(arguments: list[str], log: Path) -> None:
    done = CliRunner().invoke(app, ["report", *(each.replace("{log}", str(log)) for each in arguments)])
    assert done.exit_code == 2
    assert done.stderr.startswith("llmbuffer: error: ")


# Notebooks


def test_a_notebook_shows_reports_and_ledgers_as_pictures_without_script() -> None:
    sessions = desk()
    shown = report(sessions)._repr_html_()
    assert shown.count("<svg") == 3
    assert "<script" not in shown
    assert "expired: " in shown
    ledger = sessions[0].ledger._repr_html_()
    assert ledger.count('class="lb-bar"') == sessions[0].ledger.requests
    assert "<table>" in ledger
    assert Parsed(ledger).open == Parsed(shown).open == []
    assert SECRET not in ledger + shown
