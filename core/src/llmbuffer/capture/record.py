"""One recorded request, and logs of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..usage import Usage

__all__ = ["Captured", "append", "read_log"]


class Captured(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One request as it was sent, and what came back.

    ``at`` is when it was sent, in seconds since the epoch; ``path`` that of the URL, without query and host; ``wire`` and
    ``dialect`` are recognised by path and body; ``attempt`` counts from 1, later ones repeat a request that failed.
    ``status`` is 0 where no response came, and ``error`` then names the exception; with a response, it is the provider's
    own type of error. ``first_byte`` and ``seconds`` are those from sending to the first piece of the reply, and to its
    end; ``completed`` is false where it broke off or was not read to its end. ``usage`` is ``None`` if none was reported.

    ``body`` and ``reply`` are JSON; a streamed reply is put together. With ``redacted`` they hold pseudonyms, which can be
    compared with those of the same ``salt`` only. ``headers`` are those of the response that name the request.

    >>> Captured(at=0.0, path="/v1/messages", wire="anthropic", dialect="anthropic", model="claude", status=200).attempt
    1
    """

    at: float
    path: str
    wire: str
    dialect: str
    model: str
    status: int
    usage: Usage | None = None
    stream: bool = False
    completed: bool = True
    attempt: int = 1
    error: str | None = None
    first_byte: float | None = None
    seconds: float | None = None
    agent: str | None = None
    session: str | None = None
    headers: Mapping[str, str] = {}
    redacted: bool = False
    salt: str | None = None
    body: dict[str, Any] | None = None
    reply: dict[str, Any] | None = None

    def __repr__(self) -> str:
        shown = f"status={self.status}, attempt={self.attempt}, usage={self.usage}"
        return f"Captured(path={self.path!r}, dialect={self.dialect!r}, model={self.model!r}, {shown})"


def append(path: Path, line: bytes) -> None:
    """Append one line in one write, so that writers of several processes do not mix theirs. Raises ``OSError``.

    What a writer that died left of a line, or a full disk of this one, is closed by a line end; ``read_log`` skips it.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)  # each is missing on some systems
    log = os.open(path, flags, 0o600)
    try:
        size = os.fstat(log).st_size
        if size and hasattr(os, "pread") and os.pread(log, 1, size - 1) not in (b"\n", b""):
            line = b"\n" + line
        written = os.write(log, line)
        if written < len(line):
            os.write(log, b"\n")
            raise OSError(f"{path}: {written} of {len(line)} bytes were written")
    finally:
        os.close(log)


def read_log(path: str | Path) -> Iterator[Captured]:
    """The requests of a log, in the order in which they ended; lines that are none are skipped. Raises ``OSError``.

    >>> list(read_log(os.devnull))
    []
    """
    with Path(path).open("rb") as log:
        for line in log:
            found = _read(line)
            if found is not None:
                yield found


def _read(line: bytes) -> Captured | None:
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


_DECODER = msgspec.json.Decoder(Captured)
