"""Replaying recordings: every call through a layout and the cache model of a dialect, and what that sums up to.

The layouts:

* ``recorded``: the prompt as it was, with the provider's automatic caching;
* ``default``: the same, with noise in the system prompt, as programs write it: the clock anew at each call;
* ``buffered``: a ``Session`` for each agent, with noise as dynamic content at its ``placement``, given when a user turn
  begins and kept for the calls of that turn (so the clock shows when the turn began);
* ``separate``, ``shared``, ``auto``: the agents as members of a team, see ``llmbuffer.team``. ``separate`` is
  ``buffered`` under the name that teams have for it; ``auto`` chooses at the first call of each recording, and
  ``shared_sessions`` counts those that have one transcript.

The compactions of whole histories:

* ``never``: not at all; ``over_window`` counts the calls that do not fit. ``recorded``: when and as the program did;
* ``auto``: ``Session(compaction=Compaction(window, 0.3, [ElideToolResults(), Summarizer(), Truncator()]))``;
* ``sliding-window``: at each call the oldest messages go until it fits; ``clear-one``: old results of tools lose their
  text, one after the other, until it fits;
* ``fresh-summary``: once a call does not fit, a summary by a prompt of its own, down to 0.3 of the window.

The n-th summary of a session is the n-th one recorded, or about 1,000 tokens of the session's words, drawn by ``seed``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, get_args

import msgspec

from ..cache import CacheModel, Lookup
from ..errors import LLMBufferError, ReplayError, UnknownModelError
from ..layout import Placement
from ..plugins import get_dialect
from ..prices import Price, cost, known_models, price_for
from ..rules import CacheRules, Dialect
from ..snapshot import Snapshot, message_tokens
from ..tokens import TokenCounter, counter_for
from ..usage import Usage
from .agreement import agreement, has_rules
from .compactions import COMPACTIONS, WINDOW, CompactionName
from .figures import Agreement, Figures, ReplayResult, sources
from .keeping import Keeping, keeping
from .layouts import AsWritten, Buffered, Layout, Prompt
from .noise import NOISE, Noise
from .recordings import Call, Recording, Skipped
from .retention import Retention
from .teams import Teamed

__all__ = ["LAYOUTS", "PACES", "PLACEMENTS", "LayoutName", "Pace", "replay"]

LayoutName = Literal["recorded", "default", "buffered", "separate", "shared", "auto"]
Pace = Literal["steady", "recorded"]
LAYOUTS: tuple[str, ...] = get_args(LayoutName)
PACES: tuple[str, ...] = get_args(Pace)
PLACEMENTS: tuple[str, ...] = get_args(Placement)
# What any cache could have served at best: anything sent before in the session, to the token, for ever.
_CEILING = CacheRules(name="ceiling", match="prefix", ttl=float("inf"))


def replay(
    recordings: Iterable[Recording],
    *,
    dialect: str | Dialect = "openai",
    model: str | None = None,
    layout: LayoutName = "buffered",
    noise: Sequence[str] = (),
    seed: int = 0,
    placement: Placement = "turn",
    pace: Pace = "steady",
    recorded_usage: bool = True,
    compaction: CompactionName | None = None,
    window: int | None = None,
    prices: Mapping[str, Price] | None = None,
    counter: TokenCounter | None = None,
    skipped: list[Skipped] | None = None,
) -> ReplayResult:
    """Send every call of every recording through a layout to the cache model of ``dialect`` and ``model``; no network.

    Each recording has a cache of its own. ``layout`` is one of those that the module names.
    ``noise`` names what changes (``clock``, ``retrieval``), drawn by ``seed``. ``pace`` is the time between calls: one
    second (``steady``), which measures the layout alone, or as ``recorded`` where known, so that entries expire.
    ``compaction`` replays whole histories, as if the recorded program had left nothing out, and keeps each prompt within
    ``window`` tokens (default 150,000) in a way that the module names. The layout is ``buffered``, without noise.
    ``recorded_usage`` compares the model with reads that providers reported. ``model`` defaults to the dialect's,
    ``prices`` (in US dollars) and ``counter`` to those of the model.

    Raises ``UnknownDialectError``, ``UnknownModelError``, and ``ReplayError`` for other unknown names and for a recording
    that the dialect cannot carry; with a list ``skipped``, such a recording is appended to it instead.

    >>> from llmbuffer.replay import sample_recordings
    >>> result = replay(sample_recordings(), dialect="anthropic")
    >>> result.total.sessions, result.total.share_of_ceiling > 0.99
    (1, True)
    """
    bound, name = _bound(dialect, model)
    setting = _Setting(
        dialect=bound,
        model=name,
        layout=_choice("layout", layout, LAYOUTS),
        noise=_noise(noise, layout),
        compaction=_compaction(compaction, window, layout, noise),
        window=WINDOW if window is None else window,
        seed=seed,
        placement=_choice("placement", placement, PLACEMENTS),
        pace=_choice("pace", pace, PACES),
        recorded_usage=recorded_usage,
        price=price_for(name, overrides=prices),
        counter=_Memo(counter_for(name) if counter is None else counter),
    )
    found = _found(setting, recordings, skipped)
    return _result(setting, found, skipped or ())


def _found(
    setting: _Setting, recordings: Iterable[Recording], skipped: list[Skipped] | None
) -> list[tuple[str, Figures]]:
    """The figures of each recording, by its id."""
    found: list[tuple[str, Figures]] = []
    for recording in recordings:
        try:
            found.append((recording.id, setting.figures(recording)))
        except LLMBufferError as error:
            if skipped is None:
                raise ReplayError(f"{recording.file}:{recording.line}: {error}") from error
            skipped.append(Skipped(recording.file, recording.line, str(error)))
        setting.counter.forget()
    return found


def _bound(dialect: str | Dialect, model: str | None) -> tuple[Dialect, str]:
    named = get_dialect(dialect) if isinstance(dialect, str) else dialect
    model = named.default_model if model is None else model
    bound = named.bind(model)
    if not has_rules(bound.rules):
        known = [name for name in known_models() if has_rules(named.bind(name).rules)]
        near = get_close_matches(model, known, n=5, cutoff=0.0)
        raise UnknownModelError(
            f"no cache rules for model {model!r} in dialect {named.name!r}: use another, such as {', '.join(near)}"
        )
    return bound, model


def _choice(what: str, value: str, known: Sequence[str]) -> Any:
    if value not in known:
        raise ReplayError(f"unknown {what} {value!r}: use one of {', '.join(known)}")
    return value


def _noise(noise: Sequence[str], layout: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(_choice("noise", name, NOISE) for name in noise))
    if names and layout == "recorded":
        raise ReplayError(
            "the layout 'recorded' is the prompt as it was, without noise: use default or buffered"
        )
    return names


def _compaction(
    name: str | None, window: int | None, layout: str, noise: Sequence[str]
) -> CompactionName | None:
    if window is not None and (name is None or window < 1):
        raise ReplayError(f"the window is {window!r}: give tokens, 1 or more, and a compaction")
    if name is None:
        return None
    if layout != "buffered" or noise:
        raise ReplayError(f"compaction {name!r} is replayed in the layout 'buffered', and without noise")
    return _choice("compaction", name, COMPACTIONS)  # type: ignore[no-any-return]  # one of them


def _result(
    setting: _Setting, found: Sequence[tuple[str, Figures]], skipped: Iterable[Skipped]
) -> ReplayResult:
    source_of = sources(name for name, _ in found)
    rows: defaultdict[str, Figures] = defaultdict(Figures)
    for name, figures in found:
        rows[source_of[name]] += figures
    return ReplayResult(
        dialect=setting.dialect.name,
        model=setting.model,
        layout=setting.layout,
        rows=dict(rows),
        total=sum((figures for _, figures in found), Figures()),
        noise=setting.noise,
        seed=setting.seed,
        placement=setting.placement,
        pace=setting.pace,
        counter=setting.counter.name,
        estimated=setting.counter.estimated,
        skipped=tuple(skipped),
        compaction=setting.compaction,
        window=setting.window if setting.compaction is not None else None,
    )


class _Memo:
    """A counter that remembers, since one text is counted for several chains; ``forget`` bounds its memory."""

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter
        self._counts: dict[str, int] = {}

    @property
    def name(self) -> str:
        return self._counter.name

    @property
    def estimated(self) -> bool:
        return self._counter.estimated

    def count(self, text: str) -> int:
        known = self._counts.get(text)
        if known is None:
            known = self._counts[text] = self._counter.count(text)
        return known

    def forget(self) -> None:
        self._counts.clear()


class _Setting(msgspec.Struct, frozen=True, kw_only=True):
    """How recordings are replayed."""

    dialect: Dialect
    model: str
    layout: LayoutName
    noise: tuple[str, ...]
    compaction: CompactionName | None
    window: int
    seed: int
    placement: Placement
    pace: Pace
    recorded_usage: bool
    price: Price | None
    counter: _Memo

    def figures(self, recording: Recording) -> Figures:
        """The figures of one recording."""
        recorded = _times(recording)
        times = (
            recorded if self.pace == "recorded" else [float(index) for index in range(len(recording.calls))]
        )
        whole, layout = self.arranged(recording)
        run = _Run(self, whole, layout)
        for index, (call, at) in enumerate(zip(whole.calls, times, strict=True)):
            run.call(index, call, at)
        compared = agreement(recording, recorded, self.counter) if self.recorded_usage else Agreement()
        return msgspec.structs.replace(run.figures(), recorded=compared)

    def arranged(self, recording: Recording) -> tuple[Recording, Layout]:
        """The layout for one recording, and the recording as that takes it."""
        if self.compaction is None:
            return recording, self._layout(recording)
        return keeping(
            recording,
            Keeping(
                name=self.compaction,
                window=self.window,
                seed=self.seed,
                dialect=self.dialect,
                model=self.model,
                counter=self.counter,
            ),
        )

    def _layout(self, recording: Recording) -> Layout:
        if self.layout in ("shared", "auto"):
            prices = None if self.price is None else {self.model: self.price}
            return Teamed(
                recording,
                self.dialect,
                self.model,
                self.counter,
                self.placement,
                auto=self.layout == "auto",
                prices=prices,
            )
        if self.layout in ("buffered", "separate"):
            return Buffered(recording, self.dialect, self.model, self.counter, self.placement)
        return AsWritten(recording, self.dialect, self.model, self.counter, clock=True)


class _Run:
    """One recording on its way through layout, cache, ceiling and oracle."""

    def __init__(self, setting: _Setting, recording: Recording, layout: Layout) -> None:
        count = setting.counter.count
        self._setting, self._layout = setting, layout
        self._noise = Noise(recording, setting.noise, setting.seed, count)
        self._cache = CacheModel(setting.dialect.rules, count=count)
        stores = setting.dialect.rules.stores_output
        self._ceiling = CacheModel(msgspec.structs.replace(_CEILING, stores_output=stores), count=count)
        self._oracle: _Oracle | None = _Oracle(setting, recording) if setting.noise else None
        self._sums: defaultdict[str, int] = defaultdict(int)
        self._cost = 0.0
        self._retention = Retention()

    def call(self, index: int, call: Call, at: float) -> None:
        """Ask, look up, answer."""
        sums = self._sums
        prompt = self._layout.ask(call, self._noise.at(index, at), at)
        for aside in prompt.asides:
            lookup, _ = self._sent(aside.snapshot, aside.output, at)
            self._retention = self._retention.summarised(lookup)
        if prompt.history is not None:
            self._retention = self._retention.called(prompt.history)
        lookup, usage = self._sent(prompt.snapshot, self._output_tokens(call), at)
        self._layout.answer(call, usage)
        if self._setting.dialect.rules.stores_output:
            answered = self._layout.answered(call)
            self._cache.commit_output(answered, at)
            self._ceiling.commit_output(answered, at)
        if self._oracle is not None:
            sums["oracle_tokens"] += self._oracle.tokens(call, at)
            sums["history_read_tokens"] += lookup.read_tokens - _noise_in(prompt, lookup.read_tokens)

    def _sent(self, snapshot: Snapshot, output: int, at: float) -> tuple[Lookup, Usage]:
        """Look up, and count."""
        lookup = self._cache.commit(snapshot, at)
        usage, sums = lookup.usage(output), self._sums
        for name in ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"):
            sums[name] += getattr(usage, name)
        sums["requests"] += 1
        sums["ceiling"] += self._ceiling.commit(snapshot, at).read_tokens
        if self._setting.price is not None:
            self._cost += cost(usage, self._setting.price)
        return lookup, usage

    def _output_tokens(self, call: Call) -> int:
        if call.reported is not None:
            return call.reported.output
        return message_tokens(call.reply, self._setting.counter.count)

    def figures(self) -> Figures:
        """The sums."""
        sums: dict[str, Any] = dict(self._sums)
        if isinstance(self._layout, Teamed) and self._layout.choice is not None:
            sums["shared_sessions"] = int(self._layout.choice.layout == "shared")
        retention = None if self._setting.compaction is None else self._retention
        cost_usd = None if self._setting.price is None else self._cost
        return Figures(sessions=1, cost_usd=cost_usd, retention=retention, **sums)


class _Oracle:
    """The prompts without noise: how much of each was sent before in the session."""

    def __init__(self, setting: _Setting, recording: Recording) -> None:
        self._written = AsWritten(recording, setting.dialect, setting.model, setting.counter, clock=False)
        self._cache = CacheModel(_CEILING, count=setting.counter.count)

    def tokens(self, call: Call, at: float) -> int:
        return self._cache.commit(self._written.ask(call, {}, at).snapshot, at).read_tokens


def _noise_in(prompt: Prompt, read: int) -> int:
    return min(prompt.noise_tokens, max(0, read - prompt.noise_at))


def _times(recording: Recording) -> list[float]:
    """Seconds since the first call, as recorded; one second later than the last where nothing was."""
    known = [(index, call.at) for index, call in enumerate(recording.calls) if call.at is not None]
    now = known[0][1] - known[0][0] - 1.0 if known else -1.0
    times: list[float] = []
    for call in recording.calls:
        now = now + 1.0 if call.at is None else max(now, call.at)
        times.append(now)
    return [at - times[0] for at in times]
