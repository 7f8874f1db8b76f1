"""Files of recorded sessions, read one line at a time."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from io import BufferedReader
from os import fspath
from pathlib import Path
from typing import IO, cast

import msgspec

from ..errors import LLMBufferError, ReplayError
from .formats import parse
from .recordings import Recording, Skipped

__all__ = ["read_recordings"]


def read_recordings(
    path: str | Path, *, skipped: list[Skipped] | None = None, watch: Callable[[int], None] | None = None
) -> Iterator[Recording]:
    r"""The recordings of a ``.jsonl`` or ``.jsonl.gz`` file (told apart by content), one at a time.

    Two kinds of lines: sessions (``id``, ``system``, ``tools``, ``messages`` in OpenAI's chat format, ``usage`` and
    ``events`` where recorded) and teams (``id``, ``agents``, ``pool``, ``calls``). Memory is that of one line.

    A line that is not JSON or has another shape is appended to ``skipped``, as is the point from which a damaged gzip
    file cannot be read; without that list, the first of them raises ``ReplayError``. ``watch`` is called with the bytes
    of the file read so far. Raises ``OSError`` for a path that cannot be opened.

    >>> import tempfile
    >>> line = '{"id": "a", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello!"}]}'
    >>> skipped = []
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "some.jsonl")
    ...     _ = path.write_text(line + "\nno JSON\n", encoding="utf-8")
    ...     found = list(read_recordings(path, skipped=skipped))
    >>> found, skipped[0].line
    ([Recording(id='a', agents=1, calls=1)], 2)
    """
    with Path(path).open("rb") as raw:
        for number, line in _numbered(raw, fspath(path), skipped):
            recording = _taken(line, fspath(path), number, skipped) if line.strip() else None
            if recording is not None:
                yield recording
            if watch is not None and raw.seekable():
                watch(raw.tell())


def _numbered(raw: BufferedReader, name: str, skipped: list[Skipped] | None) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        for line in _opened(raw):
            number += 1
            yield number, line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        _skip(Skipped(name, number + 1, f"the gzip file is damaged from here on: {error}"), skipped)


def _opened(raw: BufferedReader) -> IO[bytes]:
    start = raw.peek(3)[:3]
    if start.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw, mode="rb"))
    if start == b"\xef\xbb\xbf":  # the byte order mark that some editors write
        raw.read(3)
    return raw


def _taken(line: bytes, name: str, number: int, skipped: list[Skipped] | None) -> Recording | None:
    try:
        return parse(line, name, number)
    except msgspec.ValidationError as error:
        reason = f"not a recording: {error}"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = f"not JSON: {error}"
    except LLMBufferError as error:
        reason = str(error)
    _skip(Skipped(name, number, reason), skipped)
    return None


def _skip(line: Skipped, skipped: list[Skipped] | None) -> None:
    if skipped is None:
        raise ReplayError(f"{line}; to go on without such lines, pass a list as skipped")
    skipped.append(line)
