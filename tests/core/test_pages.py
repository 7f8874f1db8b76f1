"""Stable contexts larger than the window: a frozen choice of pages in the prefix, the rest by tool, changes that bill little."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path
from typing import Any, cast

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbuffer import CacheRules, Segment, Session, StableContext
from llmbuffer.calls import check_executor, run
from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.errors import CorruptStoreError, MessageError, StoreError
from llmbuffer.messages import ToolCall
from llmbuffer.pages import Change, Page, Pages, Synced
from llmbuffer.pages.page import in_order, rendered
from llmbuffer.simulate import Call, ProviderServer, Reply
from llmbuffer.store import Store, open_store
from llmbuffer.store.levels import Levels
from llmbuffer.testing.fakes import reply
from llmbuffer.tokens import EstimateCounter

COUNTER = EstimateCounter()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/pages.db") as opened:
        yield opened


@pytest.fixture
def book(store: Store) -> Pages:
    made = Pages(store, "repo")
    made.sync({f"src/m{number}.py": f"x{number} = {number}\n" * (20 + number) for number in range(10)})
    return made


def sent_of(selection: Any) -> str:
    return "".join(segment.content for segment in selection.segments)


# The book


def test_a_sync_tells_what_came_what_changed_and_what_went(store: Store) -> None:
    book = Pages(store, "repo")
    assert book.sync({"a": "1", "b": "2"}) == Synced(added=("a", "b"))
    assert book.sync([("b", "3"), ("c", "1")]) == Synced(added=("c",), changed=("b",), removed=("a",))
    assert book.sync({"b": "3", "c": "1"}) == Synced()
    assert [(page.name, page.changes, page.syncs) for page in book.pages] == [("b", 1, 2), ("c", 0, 1)]
    assert (book.put("b", "4"), book.drop("c"), book.drop("d")) == (
        Synced(changed=("b",)),
        Synced(removed=("c",)),
        Synced(),
    )
    [page] = book.pages
    assert (page.name, page.changes, page.syncs, book.read("b")) == ("b", 2, 3, "4")


def test_equal_texts_are_kept_once_and_go_with_the_last_page(store: Store) -> None:
    book, other = Pages(store, "repo"), Pages(store, "docs")
    book.sync({"a": "same", "b": "same"})
    other.put("a", "same")
    assert len(store.keys()) == 4  # two lists, and a text in each book
    book.drop("a")
    assert book.read("b") == "same"
    book.drop("b")
    assert (other.read("a"), len(store.keys())) == ("same", 3)
    assert store.verify() == ()


def test_a_folder_is_a_book(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "code"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "a.py").write_text("x = 'ä'\n", "utf-8")
    (folder / "b.md").write_text("# B", "utf-8")
    (folder / "image.png").write_bytes(b"\x89PNG\xff")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret", "utf-8")
    book = Pages(store, "code")
    assert book.sync(folder) == Synced(added=("b.md", "src/a.py"), skipped=("image.png",))
    assert book.read("src/a.py") == "x = 'ä'\n"
    assert book.sync(folder, pattern="**/*.md").removed == ("src/a.py",)
    with pytest.raises(StoreError, match="is no folder"):
        book.sync(folder / "nowhere")


@pytest.mark.parametrize("pages", [{"": "x"}, {"a\nb": "x"}, {"a": 5}, {"a": "\ud800"}, {1: "x"}])
def test_what_is_no_page_is_refused_and_changes_nothing(book: Pages, pages: Any) -> None:
    before = book.pages
    with pytest.raises(MessageError):
        book.sync(pages)
    assert book.pages == before


def test_a_page_that_is_not_there_names_those_that_are_near(book: Pages) -> None:
    with pytest.raises(StoreError, match=r"has no page 'src/m1.pi': did you mean 'src/m1.py'"):
        book.read("src/m1.pi")


def test_a_missing_text_and_a_damaged_list_are_told_about(book: Pages, store: Store) -> None:
    page = book.pages[0]
    store.drop_texts([page.key])
    with pytest.raises(CorruptStoreError, match="is missing; sync the book again"):
        book.read(page.name)
    store.put("pages/repo", b"\xc1")
    with pytest.raises(CorruptStoreError, match="the list of book 'repo'"):
        _ = book.pages


def test_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/pages.db"

    def write(number: int) -> None:
        with open_store(url) as store:
            for turn in range(5):
                Pages(store, "repo").put(f"p{number}-{turn}", f"{number} {turn}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    with open_store(url) as store:
        assert len(Pages(store, "repo").pages) == 20


def test_another_counter_counts_anew(book: Pages, store: Store) -> None:
    class Letters:
        name, estimated = "letters", False

        def count(self, text: str) -> int:
            return len(text)

    page = Pages(store, "repo", counter=Letters()).pages[0]
    assert page.tokens == len(rendered(page.name, book.read(page.name))) + 2 > book.pages[0].tokens


# The selection


def test_what_changes_least_stands_first(store: Store) -> None:
    book = Pages(store, "repo")
    for number in range(8):
        book.sync({"daily": f"{number} " * 50, "weekly": f"{number // 4} " * 50, "never": "0 " * 50})
    assert book.select(1_000).names == ("never", "weekly", "daily")
    assert book.select(300).names == book.select(300).names
    assert [page.odds for page in book.pages] == [7.5 / 0.5, 0.5 / 7.5, 1.5 / 6.5]


def billed(order: tuple[Page, ...]) -> float:
    """What is billed again for the changes of one period, where each page changes with its own probability."""
    cost, unchanged = 0.0, 1.0
    for index, page in enumerate(order):
        chance = page.odds / (1 + page.odds)
        cost += unchanged * chance * sum(each.tokens for each in order[index:])
        unchanged *= 1 - chance
    return cost


PAGES = st.lists(
    st.builds(
        Page,
        st.uuids().map(str),
        st.just("k"),
        tokens=st.integers(1, 5_000),
        changes=st.integers(0, 5),
        syncs=st.integers(5, 20),
    ),
    min_size=2,
    max_size=5,
)


@given(PAGES)
def test_no_other_order_bills_less(pages: list[Page]) -> None:
    best = min(billed(order) for order in permutations(pages))
    assert billed(tuple(in_order(pages))) <= best * (1 + 1e-9)


def test_pinned_and_preferred_pages_come_in_first(book: Pages) -> None:
    small = book.pages[0].tokens
    chosen = book.select(small * 3, pinned=["src/m9.py"], prefer={"src/m5.py": 2.0})
    assert {"src/m9.py", "src/m5.py"} <= set(chosen.names)
    with pytest.raises(MessageError, match=r"pinned pages take \d+ tokens and the budget is 5"):
        book.select(5, pinned=["src/m9.py"])
    with pytest.raises(MessageError, match=r"has no pages \['nope'\]"):
        book.select(500, pinned=["nope"])
    assert book.select(0).segments == ()


TEXTS = st.dictionaries(
    st.text("abc/.", min_size=1, max_size=4), st.text(st.characters(codec="utf-8"), max_size=200), max_size=8
)


@settings(max_examples=60)
@given(TEXTS, st.integers(0, 400), st.data())
def test_a_selection_keeps_its_budget_and_a_change_moves_no_byte_before_it(
    texts: dict[str, str], budget: int, data: st.DataObject
) -> None:
    with open_store("memory:") as store:
        book = Pages(store, "b")
        book.sync(texts)
        chosen = book.select(budget)
        again = Pages(store, "b").select(budget)
        assert sent_of(again) == sent_of(chosen)
        counted = sum(COUNTER.count(segment.content) + 2 for segment in chosen.segments)
        assert counted == chosen.tokens <= budget
        head = Session(StableContext("m", chosen.segments), OpenAIChat(), tokens=COUNTER)._head
        assert head.node.end == chosen.tokens
        if not chosen.names:
            return
        place = data.draw(st.integers(0, len(chosen.names) - 1))
        book.put(chosen.names[place], data.draw(st.text(st.characters(codec="utf-8"), max_size=300)))
        fresh = chosen.refreshed()
        before = "".join(segment.content for segment in chosen.segments[:place])
        assert sent_of(fresh).startswith(before)
        assert fresh.tokens <= budget
        assert sent_of(chosen) == sent_of(again)  # frozen
        [told] = chosen.changed() or [None]
        if told is not None and fresh.names == chosen.names:
            assert told.tokens == sum(page.tokens for page in fresh.pages[place:])


# Bringing it up to date


def test_a_thaw_bills_what_was_said_beforehand(book: Pages) -> None:
    chosen = book.select(10_000)
    engine = OpenAIChat(CacheRules(name="engine", match="prefix"))
    session = Session(StableContext("a-model", chosen.segments), engine, tokens=COUNTER)
    reply(session.request("Hello"))
    victim = chosen.names[6]
    book.put(victim, "y = 1\n" * 30)
    [change] = chosen.changed(behind=session.tip.end)
    assert (isinstance(change, Change), change.page) == (True, victim)
    warm = session.request("And now?").forecast
    cold = thawed(session, chosen.refreshed().segments).request("And now?").forecast
    tag = COUNTER.count(f'<page name="{victim}">')  # stands where it stood, so it is still read
    assert 0 <= change.tokens - (cold.fresh_tokens - warm.fresh_tokens) <= tag + session.tip.tokens
    assert chosen.refreshed().changed() == ()


def thawed(session: Session, segments: Any) -> Session:
    fork = session.fork()
    fork.thaw(reason="a page has changed")
    fork.update(system=segments)
    return fork


def test_a_delta_leaves_the_prefix_alone(book: Pages) -> None:
    chosen = book.select(10_000)
    session = Session(StableContext("gpt-5.5", chosen.segments, chosen.tools), tokens=COUNTER)
    reply(session.request("Hello"))
    assert chosen.delta() is None
    first, last = chosen.names[0], chosen.names[-1]
    book.put(first, book.read(first).replace("x", "y", 1))
    book.drop(last)
    found = chosen.delta()
    assert found is not None
    message, knows = found
    assert (message.role, knows.segments, knows.changed()) == ("user", chosen.segments, ())
    assert f'<diff page="{first}">' in message.text
    assert f'<page name="{last}" removed="true"/>' in message.text
    session.append(message)
    assert session.request("And now?").forecast.read_tokens > chosen.tokens
    book.put(first, "z = 1")
    told = knows.delta()
    assert told is not None
    assert rendered(first, "z = 1") in told[0].text  # in full: the difference to the first delta is not kept
    assert last not in told[0].text


def test_the_model_reads_the_rest_through_the_loop(book: Pages) -> None:
    chosen = book.select(200)
    away = next(page.name for page in book.pages if page.name not in chosen.names)
    script: list[Reply | str] = [
        Reply(
            calls=(Call("list_pages", '{"prefix": "src/"}'), Call("read_page", json.dumps({"name": away})))
        ),
        Reply(calls=(Call("read_page", json.dumps({"name": "nope"})),)),
        "Done.",
    ]
    session = Session(StableContext("gpt-5.5", chosen.segments, chosen.tools))
    with (
        ProviderServer(replies=script) as server,
        openai.OpenAI(base_url=server.openai_url, api_key="k", max_retries=0) as client,
    ):
        assert session.respond("Look.", tools=chosen.executor, client=client).text == "Done."
    results = [result for message in session.messages for result in message.tool_results]
    assert away in str(results[0].content)
    assert (results[1].content, results[2].is_error) == (book.read(away), True)


def test_lines_of_a_page_may_be_read(book: Pages) -> None:
    book.put("poem", "one\ntwo\nthree\nfour")
    executor = book.select(100).executor
    check_executor(executor, asynchronous=False)
    call = ToolCall("1", "read_page", '{"name": "poem", "first": 2, "last": 3}')
    assert run(call, executor, ["read_page"]).content == "two\nthree\n"
    assert executor["list_pages"]("nothing") == "no page has such a name"
    book.sync({f"p{number:04}": "x" for number in range(1_002)})
    listed = executor["list_pages"]("p").splitlines()
    assert (len(listed), listed[-1]) == (1_001, "… and 2 more: give a longer prefix")


def test_tools_are_the_same_whatever_is_selected(book: Pages, store: Store) -> None:
    assert book.select(0).tools == Pages(store, "another").select(500).tools
    mine = Segment("policy", "Be kind.", level="global")
    context = StableContext("gpt-5.5", [mine, *book.select(500).segments], book.select(500).tools)
    assert [segment.level for segment in context.segments][:2] == ["global", "tenant"]
    assert {segment.level for segment in book.select(500, level="user").segments} == {"user"}


# Levels


def named_levels(store: Store) -> Levels:
    levels = Levels(store)
    levels.put("global", "policy", "Answer kindly and with a source. " * 200)
    levels.put("tenant", "acme", "The shop sells teapots. " * 100, ttl="long")
    for user in ("ann", "ben"):
        levels.put("user", user, f"The customer is {user}.")
    return levels


def context_of(store: Store, user: str) -> StableContext:
    return Levels(store).context("gpt-5.5", {"user": user, "tenant": "acme", "global": ["policy"]})


def test_contexts_of_named_levels_share_their_prefix(store: Store) -> None:
    named_levels(store)
    ann, ben = (Session(context_of(store, user)) for user in ("ann", "ben"))
    assert [segment.level for segment in ann.context.segments] == ["global", "tenant", "user"]
    assert ann.context.segments[:2] == ben.context.segments[:2]
    one, two = (session.request("Hello").body["messages"][0]["content"] for session in (ann, ben))
    same = [left == right for left, right in zip(one, two, strict=False)].index(False)
    assert one[:same].endswith("The customer is ")
    assert same > 8_000


def test_sessions_share_the_rows_of_their_levels(tmp_path: Path) -> None:
    def size(name: str, *, shared: bool) -> int:
        with open_store(f"sqlite:///{tmp_path}/{name}.db") as store:
            levels = named_levels(store)
            for number in range(50):
                levels.put("user", f"u{number}", f"The customer is number {number}.")
                context = levels.context("gpt-5.5", {"global": "policy", "user": f"u{number}"})
                if not shared:
                    cast(dict[str, str], store.known_texts).clear()
                Session(context, store=store, session_id=f"s{number}").save()
            assert store.verify() == ()
            found = Session.load(store, "s7").context
            assert found == context_of_number(levels, 7)
            assert store.context(found.fingerprint) == found
            return store.stats().record_bytes

    assert size("shared", shared=True) < 0.2 * size("apart", shared=False)


def context_of_number(levels: Levels, number: int) -> StableContext:
    return levels.context("gpt-5.5", {"global": "policy", "user": f"u{number}"})


def test_a_session_keeps_the_text_that_it_was_saved_with(store: Store) -> None:
    levels = named_levels(store)
    session = Session(context_of(store, "ann"), store=store, session_id="s1")
    session.save()
    levels.put("user", "ann", "Ann prefers coffee.")
    levels.drop("tenant", "acme")
    assert levels.sweep() == 0
    with open_store(f"sqlite:///{store.backend.path}") as other:  # type: ignore[attr-defined]  # SQLite's
        found = Session.load(other, "s1")
        assert found.request("Hello").body == session.request("Hello").body
        assert Levels(other).segment("user", "ann").content == "Ann prefers coffee."
    store.forget("s1")
    assert (levels.sweep(), levels.sweep()) == (2, 0)
    assert store.verify() == ()


def test_what_is_swept_while_somebody_saves_comes_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = named_levels(store)
    session = Session(context_of(store, "ann"), store=store, session_id="s1")
    levels.drop("user", "ann")
    drop = Store.drop_texts

    def dropped(self: Store, keys: Any) -> int:
        session.save()  # between the look for what is unused and its removal
        return drop(self, keys)

    monkeypatch.setattr(Store, "drop_texts", dropped)
    assert levels.sweep() == 0
    assert Session.load(store, "s1").context == session.context
    monkeypatch.undo()
    store.drop_texts([key for key in tuple(store.keys()) if key.startswith("text/levels/")])
    session.append({"role": "user", "content": "Hello"})
    session.save()  # brings its texts along
    assert Session.load(store, "s1").messages == session.messages


def test_levels_move_with_an_export(store: Store) -> None:
    named_levels(store)
    session = Session(context_of(store, "ann"), store=store, session_id="s1")
    session.save()
    with open_store("memory:") as other:
        other.import_(list(store.export()))
        assert Session.load(other, "s1").context == session.context
        assert other.context(session.context.fingerprint) == session.context
        assert other.verify() == ()


def test_a_text_that_is_missing_is_told_about(store: Store) -> None:
    levels = named_levels(store)
    Session(context_of(store, "ann"), store=store, session_id="s1").save()
    store.drop_texts([key for key in tuple(store.keys()) if key.startswith("text/levels/")])
    with pytest.raises(CorruptStoreError, match="of a context is missing"):
        Session.load(store, "s1")
    with pytest.raises(CorruptStoreError, match="put it again"):
        levels.segment("user", "ann")


def test_what_is_no_level_is_refused(store: Store) -> None:
    levels = named_levels(store)
    with pytest.raises(MessageError, match="'turn' is no stable level"):
        levels.put("turn", "clock", "12:00")
    with pytest.raises(MessageError, match="name of a user text"):
        levels.put("user", "", "x")
    with pytest.raises(StoreError, match="level 'user' has no 'zoe': put it first; there is 'ann', 'ben'"):
        levels.context("gpt-5.5", {"user": "zoe"})
