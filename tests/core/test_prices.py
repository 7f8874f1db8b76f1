"""Prices: a dated source for every row, tiers at their exact boundary, and no model priced as another one."""

from __future__ import annotations

import datetime as dt
import sys
from importlib import resources
from types import ModuleType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbuffer import prices
from llmbuffer.errors import PriceError
from llmbuffer.prices import CostParts, Price, Rates, Tier, cost, cost_parts, known_models, price_for
from llmbuffer.usage import Usage

CHECKED_WITH = "0.2.3"  # of genai-prices, when the table was last checked
PEAK = dt.datetime(
    2026, 11, 20, 2, tzinfo=dt.timezone.utc
)  # a weekday at 02:00, when DeepSeek charges in full

# litellm 1.109.1, model_prices_and_context_window_backup.json: input, cache read, short write, long write, output.
FACTS: dict[str, tuple[float | None, ...]] = {
    "gpt-6-astra": (10, 1, 12.5, 25, 50),
    "gpt-6-sol": (2, 0.20, 2.5, 5, 10),
    "gpt-6.1-sol": (2, 0.10, 2.5, 5, 10),
    "gpt-6.1-terra": (1, 0.05, 1.25, 2.5, 5),
    "gpt-6-luna": (0.10, 0.01, 0.125, 0.25, 0.50),
    "gpt-5.6": (4, 0.40, 5, 10, 20),
    "gpt-5.6-sol": (4, 0.40, 5, 10, 20),
    "gpt-5.6-terra": (2, 0.20, 2.5, 5, 12),
    "gpt-5.5": (5, 0.50, None, None, 30),
    "gpt-5.4": (2.5, 0.25, None, None, 15),
    "gpt-5": (1.25, 0.125, None, None, 10),
    "gpt-4.1": (2, 0.50, None, None, 8),
    "gpt-4o": (2.5, 1.25, None, None, 10),
    "o3": (2, 0.50, None, None, 8),
    "o4-mini": (1.1, 0.275, None, None, 4.4),
    "claude-fable-5.1": (10, 0.25, 12.5, 20, 50),
    "claude-fable-5": (10, 1, 12.5, 20, 50),
    "claude-mythos-5.1": (10, 0.25, 12.5, 20, 50),
    "claude-mythos-5": (10, 1, 12.5, 20, 50),
    "claude-opus-4.8": (5, 0.50, 6.25, 10, 25),
    "claude-opus-4.7": (5, 0.50, 6.25, 10, 25),
    "claude-opus-4.6": (5, 0.50, 6.25, 10, 25),
    "claude-opus-5.5": (4, 0.20, 5, 8, 20),
    "claude-opus-5": (5, 0.50, 6.25, 10, 25),
    "claude-opus-4.5": (5, 0.50, 6.25, 10, 25),
    "claude-sonnet-5.5": (2, 0.10, 2.5, 4, 10),
    "claude-sonnet-5": (2, 0.20, 2.5, 4, 10),
    "claude-haiku-5.5": (0.10, 0.01, 0.125, 0.20, 0.5),
    "claude-haiku-4.5": (1, 0.10, 1.25, 2, 5),
    "gemini-4-argon": (2, 0.10, None, None, 10),
    "gemini-3.8-flash": (0.75, 0.075, None, None, 3.75),
    "gemini-3.1-pro": (2, 0.20, None, None, 12),
    "gemini-3.7-flash": (0.75, 0.075, None, None, 3.75),
    "gemini-3.6-flash": (0.75, 0.075, None, None, 3.75),
    "gemini-3.5-flash": (1.5, 0.15, None, None, 9),
    "gemini-2.5-pro": (1.25, 0.125, None, None, 10),
    "gemini-2.5-flash": (0.30, 0.03, None, None, 2.5),
    "deepseek-flash": (0.30, 0.006, None, None, 1.2),
    "deepseek-v4-flash": (0.30, 0.006, None, None, 1.2),
    "deepseek-chat": (0.28, 0.028, None, None, 0.42),
    "deepseek-v4-pro": (1.32, 0.044, None, None, 3.96),
}
GENAI_LACKS = {"claude-mythos-5", "claude-mythos-5.1"}
GENAI_NAMES = {"gemini-3.1-pro": "gemini-3.1-pro-preview"}
DISPUTED = {"deepseek-chat"}  # its note in the table says what genai-prices has
TIERS = {"gpt-5.5": 272_000, "gpt-6.1-sol": 272_000, "gemini-3.1-pro": 200_000, "claude-haiku-5.5": 100_000}

tokens = st.integers(0, 10**7)
rate = st.floats(0, 1000)
optional = st.none() | rate


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    read, short, long, fresh, output = (draw(tokens) for _ in range(5))
    return Usage(
        input_tokens=read + short + long + fresh,
        output_tokens=output,
        cache_read_tokens=read,
        cache_write_tokens=short + long,
        cache_write_long_tokens=long,
    )


flat_prices = st.builds(
    Price, input=rate, output=rate, cache_read=optional, cache_write=optional, cache_write_long=optional
)


def row(model: str) -> Price:
    price = price_for(model)
    assert price is not None
    return price


def listed(rates: Rates) -> tuple[float | None, ...]:
    return (rates.input, rates.cache_read, rates.cache_write, rates.cache_write_long, rates.output)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if genai-prices were not installed."""
    monkeypatch.setitem(sys.modules, "genai_prices", None)


# --- the table


@pytest.mark.parametrize("model", known_models())
def test_every_row_says_where_and_when_it_was_read(model: str) -> None:
    price = row(model)
    assert price.model == model
    assert price.provider in {"openai", "anthropic", "google", "deepseek"}
    assert price.source.startswith("litellm 1.109.1 model_prices_and_context_window_backup.json, row `")
    assert price.date == dt.date(2026, 11, 21)
    assert price.input > 0
    assert price.output > 0
    assert price.cache_read is not None or model == "gpt-4o-2024-05-13"


@pytest.mark.parametrize("model", FACTS)
def test_the_rows_are_those_of_the_facts(model: str) -> None:
    assert listed(row(model)) == FACTS[model]


def test_the_file_holds_no_model_twice() -> None:
    content = resources.files("llmbuffer").joinpath("prices.json").read_bytes()
    names = [entry["model"] for entry in msgspec.json.decode(content)["rows"]]
    assert sorted(set(names)) == sorted(names) == list(known_models())
    assert len({prices._canonical(name) for name in names}) == len(names)


@pytest.mark.parametrize("model", [model for model in known_models() if model.startswith("claude")])
def test_anthropic_writes_cost_a_quarter_more_or_double(model: str) -> None:
    for rates in (row(model), *row(model).tiers):
        assert rates.write_multiplier == pytest.approx(1.25)
        assert rates.write_long_multiplier == pytest.approx(2)


@pytest.mark.parametrize("model", [model for model in known_models() if model.startswith("gpt")])
def test_openai_writes_are_free_up_to_gpt_5_5(model: str) -> None:
    newer = model.startswith(("gpt-5.6", "gpt-6"))
    for rates in (row(model), *row(model).tiers):
        assert rates.write_multiplier == pytest.approx(1.25 if newer else 1)
        assert rates.write_long_multiplier == pytest.approx(2.5 if newer else 1)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4o", 0.5),
        ("gpt-4.1", 0.25),
        ("gpt-5", 0.1),
        ("gpt-6-sol", 0.1),
        ("gpt-6.1-sol", 0.05),
        ("claude-opus-4.5", 0.1),
        ("claude-opus-5.5", 0.05),
        ("claude-sonnet-5.5", 0.05),
        ("claude-fable-5.1", 0.025),
        ("gemini-4-argon", 0.05),
        ("deepseek-flash", 0.02),
    ],
)
def test_what_a_read_costs_relative_to_input(model: str, expected: float) -> None:
    assert row(model).read_multiplier == pytest.approx(expected)


@pytest.mark.parametrize("model", known_models())
def test_a_tier_raises_every_rate(model: str) -> None:
    price = row(model)
    for tier in price.tiers:
        for base, raised in zip(listed(price), listed(tier), strict=True):
            assert (base is None) == (raised is None)
            assert base is None or raised is None or raised > base


@pytest.mark.parametrize(("model", "above"), TIERS.items())
def test_a_tier_begins_with_the_token_after_its_threshold(model: str, above: int) -> None:
    price = row(model)
    (tier,) = price.tiers
    assert tier.above == above
    assert cost(Usage(input_tokens=above), price) == pytest.approx(above * price.input / 1e6)
    assert cost(Usage(input_tokens=above + 1), price) == pytest.approx((above + 1) * tier.input / 1e6)
    assert cost_parts(Usage(input_tokens=above + 1, output_tokens=10), price).output == pytest.approx(
        10 * tier.output / 1e6
    )


def test_our_rows_agree_with_genai_prices() -> None:
    genai = pytest.importorskip("genai_prices", reason="the extra `prices` is not installed")
    if genai.__version__ != CHECKED_WITH:
        pytest.skip(f"the table was checked with genai-prices {CHECKED_WITH}, not {genai.__version__}")
    for model in known_models():
        if model in GENAI_LACKS:
            assert prices._from_genai(model, PEAK) is None
            continue
        ours, theirs = row(model), prices._from_genai(GENAI_NAMES.get(model, model), PEAK)
        assert theirs is not None, model
        same = known_rates(theirs, ours) == listed(theirs)
        assert same == (model not in DISPUTED), model
        assert [tier.above for tier in theirs.tiers] == [tier.above for tier in ours.tiers], model
        for their_tier, our_tier in zip(theirs.tiers, ours.tiers, strict=True):
            assert known_rates(their_tier, our_tier) == listed(their_tier), model


def known_rates(theirs: Rates, ours: Rates) -> tuple[float | None, ...]:
    """Our rates, without those that genai-prices does not have: it knows no 12 h writes of OpenAI."""
    pairs = zip(listed(theirs), listed(ours), strict=True)
    return tuple(None if other is None else own for other, own in pairs)


# --- names


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-20240806", "gpt-4o"),
        ("gpt-4o-0806", "gpt-4o"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("azure/gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("openai/gpt-4o", "gpt-4o"),
        ("openai:gpt-5.6", "gpt-5.6"),
        ("GPT-5.6-Sol", "gpt-5.6-sol"),
        ("gpt-5-6", "gpt-5.6"),
        ("azure/gpt-5.5-2026-04-23", "gpt-5.5"),
        ("claude-opus-4-5", "claude-opus-4.5"),
        ("claude-opus-4.5", "claude-opus-4.5"),
        ("anthropic/claude-opus-4-5-20251101", "claude-opus-4.5"),
        ("vertex_ai/claude-haiku-4-5@20251001", "claude-haiku-4.5"),
        ("models/gemini-3.1-pro", "gemini-3.1-pro"),
        ("gemini/gemini-3.1-pro-preview", "gemini-3.1-pro"),
        ("google/models/gemini-4-argon", "gemini-4-argon"),
        ("deepseek/deepseek-chat", "deepseek-chat"),
    ],
)
def test_spellings_of_a_model(alone: None, name: str, model: str) -> None:
    assert row(name).model == model


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpt-4o-mini-high",
        "gpt-4o-realtime",
        "gpt-5-pro",
        "gpt-4",
        "gpt-4-0613",
        "gpt-4o-1332",
        "gpt-4o-2024",
        "claude-opus-4-20250514",
        "claude-opus",
        "ft:gpt-4o:org::id",
        "openrouter/openai/gpt-4o",
        "us.anthropic.claude-opus-4-5-20251101-v1:0",
        "my-gpt-4o",
    ],
)
def test_no_model_gets_the_price_of_another(alone: None, name: str) -> None:
    assert price_for(name) is None


@given(st.sampled_from(known_models()), st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=1))
def test_a_suffix_is_another_model(model: str, suffix: str) -> None:
    found = prices._table().keys() & set(prices._spellings(f"{model}-{suffix}"))
    assert found <= {prices._canonical(f"{model}-{suffix}")}


# --- a user's own prices, and those of genai-prices


def test_own_prices_win() -> None:
    own = Price(input=1, output=2)
    overrides = {"claude-opus-4.5": own, "corp-model": own}
    assert price_for("anthropic/claude-opus-4-5-20251101", overrides=overrides) is own
    assert price_for("corp-model", overrides=overrides) is own
    assert price_for("gpt-4o", overrides=overrides) == price_for("gpt-4o")


def test_a_price_for_one_seller_is_for_that_seller() -> None:
    azure = Price(input=3, output=9)
    assert price_for("azure/gpt-4o", overrides={"azure/gpt-4o": azure}) is azure
    assert price_for("gpt-4o", overrides={"azure/gpt-4o": azure}) == price_for("gpt-4o")


class Found(msgspec.Struct):
    """The shape of what `genai_prices.calc_price` returns, as far as it is read."""

    model_price: object
    model: object
    provider: object


class Record:
    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


def stand_in(monkeypatch: pytest.MonkeyPatch, **rates: object) -> list[tuple[str, str | None]]:
    """Put a module of the same shape in the place of genai-prices; returns what it was asked."""
    asked: list[tuple[str, str | None]] = []

    def calc_price(
        usage: object, model_ref: str, *, provider_id: str | None, genai_request_timestamp: dt.datetime
    ) -> Found:
        asked.append((model_ref, provider_id))
        if not rates:
            raise LookupError(model_ref)
        return Found(Record(**rates), Record(id=model_ref), Record(id=provider_id or "guessed"))

    module = ModuleType("genai_prices")
    module.__dict__.update(calc_price=calc_price, Usage=Record, __version__="9.9")
    monkeypatch.setitem(sys.modules, "genai_prices", module)
    return asked


def test_genai_prices_answers_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Record(base=2, tiers=[Record(start=1000, price=4), Record(start=5000, price=6)])
    asked = stand_in(monkeypatch, input_mtok=steps, output_mtok=8, cache_read_mtok=0.2, cache_write_mtok=None)
    price = price_for("Groq/llama-9", at=PEAK)
    assert asked == [("llama-9", "groq")]
    assert price == Price(
        model="llama-9",
        provider="groq",
        input=2.0,
        output=8.0,
        cache_read=0.2,
        tiers=(
            Tier(above=1000, input=4.0, output=8.0, cache_read=0.2),
            Tier(above=5000, input=6.0, output=8.0, cache_read=0.2),
        ),
        source="genai-prices 9.9",
        date=PEAK.date(),
    )
    assert [price.rates(size).input for size in (1000, 1001, 5001)] == [2, 4, 6]


def test_genai_prices_is_asked_for_nothing_that_we_have(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stand_in(monkeypatch, input_mtok=1, output_mtok=1)
    assert row("gpt-4o").source.startswith("litellm")
    assert asked == []


def test_genai_prices_is_asked_for_both_spellings_of_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = stand_in(monkeypatch)
    assert price_for("anthropic/claude-mythos-9.1") is None
    assert asked == [("claude-mythos-9.1", None), ("claude-mythos-9-1", None)]


@pytest.mark.parametrize("rates", [{}, {"audio_hours": 1}, {"input_mtok": 1}])
def test_what_genai_prices_cannot_say_is_none(
    monkeypatch: pytest.MonkeyPatch, rates: dict[str, object]
) -> None:
    asked = stand_in(monkeypatch, **rates)
    assert price_for("whisper-9") is None
    assert asked[0] == ("whisper-9", None)


def test_a_broken_installation_of_genai_prices_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'pydantic'", name="pydantic")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="pydantic"):
        price_for("no-such-model")


# --- arithmetic


def test_the_parts_of_a_request() -> None:
    usage = Usage(
        input_tokens=10_000,
        output_tokens=300,
        cache_read_tokens=6_000,
        cache_write_tokens=3_000,
        cache_write_long_tokens=1_000,
    )
    parts = cost_parts(usage, row("claude-sonnet-5"))
    assert parts.read == pytest.approx(6_000 * 0.20 / 1e6)
    assert parts.written == pytest.approx((2_000 * 2.5 + 1_000 * 4) / 1e6)
    assert parts.fresh == pytest.approx(1_000 * 2 / 1e6)
    assert parts.output == pytest.approx(300 * 10 / 1e6)
    assert parts.total == cost(usage, row("claude-sonnet-5"))


@given(usages(), flat_prices)
def test_the_multipliers_tell_the_same_cost(usage: Usage, price: Price) -> None:
    if price.input < 1e-6:
        return
    short = usage.cache_write_tokens - usage.cache_write_long_tokens
    in_input_tokens = (
        usage.fresh_tokens
        + usage.cache_read_tokens * price.read_multiplier
        + short * price.write_multiplier
        + usage.cache_write_long_tokens * price.write_long_multiplier
    )
    expected = (in_input_tokens * price.input + usage.output_tokens * price.output) / 1e6
    assert cost(usage, price) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(usages(), usages(), flat_prices)
def test_without_tiers_costs_add_up(one: Usage, two: Usage, price: Price) -> None:
    assert cost(one + two, price) == pytest.approx(cost(one, price) + cost(two, price), rel=1e-9, abs=1e-12)


@given(usages(), rate, rate)
def test_without_cache_rates_every_prompt_token_costs_the_same(usage: Usage, fee: float, out: float) -> None:
    price = Price(input=fee, output=out)
    assert (price.read_multiplier, price.write_multiplier, price.write_long_multiplier) == (1, 1, 1)
    assert cost(usage, price) == pytest.approx((usage.input_tokens * fee + usage.output_tokens * out) / 1e6)


@given(st.lists(usages(), max_size=5), flat_prices)
def test_parts_of_several_requests_add_up(several: list[Usage], price: Price) -> None:
    parts = [cost_parts(usage, price) for usage in several]
    total = sum(parts, CostParts())
    for name in CostParts.__struct_fields__:
        assert getattr(total, name) == pytest.approx(sum(getattr(each, name) for each in parts))
    assert total.total == pytest.approx(sum(cost(usage, price) for usage in several))
    with pytest.raises(TypeError):
        total + 1  # type: ignore[operator]


@given(usages(), flat_prices)
def test_no_part_is_negative(usage: Usage, price: Price) -> None:
    parts = cost_parts(usage, price)
    assert min(parts.read, parts.written, parts.fresh, parts.output) >= 0


def test_the_highest_tier_that_is_reached_counts_whatever_their_order() -> None:
    tiers = (Tier(above=500, input=9, output=9), Tier(above=100, input=3, output=3))
    price = Price(input=1, output=1, tiers=tiers)
    assert [price.rates(size).input for size in (0, 100, 101, 500, 501)] == [1, 1, 3, 3, 9]


def test_free_input_makes_no_token_cheaper_than_another() -> None:
    engine = Price(input=0, output=0)
    assert (engine.read_multiplier, engine.write_multiplier, engine.write_long_multiplier) == (1, 1, 1)
    assert cost(Usage(input_tokens=1000, output_tokens=10), engine) == 0


@pytest.mark.parametrize("bad", [-1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("field", ["input", "output", "cache_read", "cache_write", "cache_write_long"])
def test_a_rate_that_makes_no_sense_is_refused(field: str, bad: float) -> None:
    with pytest.raises(PriceError, match=f"the rate '{field}' is"):
        Price(**{"input": 1.0, "output": 1.0, field: bad})  # type: ignore[arg-type]


def test_prices_are_values() -> None:
    price = row("gpt-5.6")
    assert hash(price) == hash(row("gpt-5.6"))
    with pytest.raises(AttributeError):
        price.input = 0  # type: ignore[misc]
    assert msgspec.json.decode(msgspec.json.encode(price), type=Price) == price
    assert CostParts(read=1, written=2, fresh=3, output=4).total == 10
