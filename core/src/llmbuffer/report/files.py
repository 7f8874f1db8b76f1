"""Reports of files: request logs, and the JSON documents of ``fanout``, ``graph run`` and ``replay``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import msgspec

from ..errors import MessageError, ReportError
from ..prices import Price, price_for
from ..rules import Dialect
from ..usage import Usage
from .lines import LineReader
from .model import Bar, Branch, Report, priced

__all__ = ["read_report"]

Prices: TypeAlias = "Mapping[str, Price] | None"


def read_report(
    path: str | Path,
    *,
    dialect: str | Dialect | None = None,
    model: str | None = None,
    prices: Prices = None,
    title: str | None = None,
) -> Report:
    """A report of a file: a request log (JSON lines), or what ``fanout``, ``graph run`` or ``replay`` print with ``--json``.

    ``dialect`` and ``model`` as for ``explain``; ``model`` also prices documents that name none. Lines of a log are taken
    in the order in which their requests were sent, and held one at a time; those that are no requests are counted in
    ``skipped``.

    Raises ``ReportError`` for a file in which nothing was found, and ``OSError``.

    >>> import json, tempfile
    >>> row = {"name": "a", "input_tokens": 2000, "cache_read_tokens": 1000, "cost_usd": 0.1}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = Path(folder, "run.json")
    ...     _ = run.write_text(json.dumps({"model": "gpt-5.5", "workers": [row]}))
    ...     read_report(run)
    Report('run.json', requests=1, hit_ratio=0.500, breaks=0)
    """
    file = Path(path)
    named = file.name if title is None else title
    document = _document(file)
    if document is None:
        return _log(file, named, LineReader(dialect=dialect, model=model, prices=prices))
    for key, make in _KINDS.items():
        if isinstance(document.get(key), list):
            rows = [row for row in document[key] if isinstance(row, Mapping)]
            return make(named, document, rows, _price(document, model, prices))
    raise ReportError(
        f"{str(file)!r}: found a JSON document with the keys {sorted(document)[:8]}; expected a request log, or what fanout, "
        "graph run or replay print with --json"
    )


def _document(file: Path) -> dict[str, Any] | None:
    """The JSON object that is the whole file; ``None`` for lines of JSON, and for a single line of a log."""
    with file.open("rb") as opened:
        first = opened.readline()
    try:
        found = msgspec.json.decode(first)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    else:
        return found if isinstance(found, dict) and not found.keys().isdisjoint(_KINDS) else None
    if first.strip() not in (b"{", b"["):
        return None
    try:
        found = msgspec.json.decode(file.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return found if isinstance(found, dict) else None


def _price(document: Mapping[str, Any], model: str | None, prices: Prices) -> Price | None:
    named = model if model is not None else document.get("model")
    return price_for(named, overrides=prices) if isinstance(named, str) else None


# Logs


def _log(file: Path, title: str, reader: LineReader) -> Report:
    bars, branches, skipped = [], dict[str, Branch](), 0
    reported = False
    with file.open("rb") as opened:
        for offset in _in_order(opened):
            opened.seek(offset)
            line = opened.readline()
            reported = reported or b'"outcome"' not in line
            try:
                bar = reader.read(line)
            except ReportError:
                skipped += 1
                continue
            bars.append(bar)
            branches.setdefault(bar.branch, Branch(id=bar.branch, name=bar.branch))
    if not bars:
        raise ReportError(
            f"{str(file)!r}: found no request ({skipped} lines skipped); give a log of llmbuffer.capture or of "
            "`llmbuffer serve --log`, or what fanout, graph run or replay print with --json"
        )
    notes = _log_notes(bars)
    return Report(
        title=title,
        source="request log",
        measured=None if reported else False,
        bars=tuple(bars),
        branches=tuple(branches.values()),
        skipped=skipped,
        notes=notes,
    )


def _log_notes(bars: list[Bar]) -> tuple[str, ...]:
    if any(bar.stretches for bar in bars):
        return ()
    return (
        (
            "The log holds no bodies: breaks are those that it names itself, and sections are not known. "
            "llmbuffer.capture writes logs with (redacted) bodies."
        ),
    )


class _When(msgspec.Struct):
    at: float = 0.0


def _in_order(opened: BinaryIO) -> Iterator[int]:
    """Where the lines begin, in the order in which their requests were sent: a log has them in that of their ends."""
    decoder = msgspec.json.Decoder(_When)
    places: list[tuple[float, int]] = []
    offset, latest = 0, 0.0
    for line in opened:
        if line.strip():
            with suppress(
                msgspec.DecodeError, UnicodeDecodeError
            ):  # it stays with its neighbour, and is told as skipped
                latest = decoder.decode(line).at
            places.append((latest, offset))
        offset += len(line)
    yield from (offset for _, offset in sorted(places))


# Documents of commands


def _workers(title: str, document: Mapping[str, Any], rows: list[Any], price: Price | None) -> Report:
    model = str(document.get("model", ""))
    bars = [
        _bar(number, row, str(row.get("name", number)), "worker", price, model)
        for number, row in enumerate(rows, 1)
    ]
    return _run(title, "fan-out", str(document.get("model", "session")), bars)


def _tasks(title: str, document: Mapping[str, Any], rows: list[Any], price: Price | None) -> Report:
    bars = [
        _bar(number, row, str(row.get("key", number)), "task", price, "", _status(row))
        for number, row in enumerate(rows, 1)
    ]
    return _run(title, "task graph", f"run {document.get('run_id', '')}", bars)


def _sources(title: str, document: Mapping[str, Any], rows: list[Any], price: Price | None) -> Report:
    bars = []
    for number, row in enumerate(rows, 1):
        name = str(row.get("source", number))
        bars.append(_bar(number, row, name, "source", price, str(document.get("model", ""))))
    told = [str(document.get(key)) for key in ("dialect", "model", "layout") if document.get(key)]
    made = _run(title, "replay, " + ", ".join(told), "all sources", bars)
    return msgspec.structs.replace(made, measured=False)


def _status(row: Mapping[str, Any]) -> str:
    """The status, and the kind of an error: its message may hold text of a prompt."""
    error = str(row.get("error") or "").partition(":")[0]
    return " ".join(filter(None, (str(row.get("status", "")), error if error.isidentifier() else "")))


def _run(title: str, source: str, root: str, bars: list[Bar]) -> Report:
    """A root, and a branch for each row."""
    trunk = Branch(id="", name=root)
    forks = tuple(Branch(id=bar.branch, name=bar.name, parent="") for bar in bars)
    notes = ("The run tells sums, not single requests: each bar is one row of it.",)
    return Report(title=title, source=source, bars=tuple(bars), branches=(trunk, *forks), notes=notes)


def _bar(
    number: int,
    row: Mapping[str, Any],
    name: str,
    kind: str,
    price: Price | None,
    model: str,
    note: str = "",
) -> Bar:
    ceiling, paid = row.get("ceiling"), row.get("cost_usd")
    bar = Bar(
        number=number,
        branch=f"{number}",
        kind=kind,
        name=name,
        model=model,
        requests=_count(row.get("requests", row.get("attempts", 1))),
        usage=_usage(row),
        note=note,
        cost=float(paid) if isinstance(paid, int | float) else None,
        ceiling_tokens=_count(ceiling) if isinstance(ceiling, int) else None,
    )
    return priced(bar, price)


def _usage(row: Mapping[str, Any]) -> Usage | None:
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    try:
        return Usage(*(_count(row.get(name, 0)) for name in names))
    except MessageError:
        return None


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and value >= 0 else 0


_KINDS: dict[str, Callable[[str, Mapping[str, Any], list[Any], Price | None], Report]] = {
    "workers": _workers,
    "tasks": _tasks,
    "rows": _sources,
}
