"""A log that grows: its new lines, whatever happens to the file meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from typing_extensions import Self

__all__ = ["Follower"]

_PIECE = 1 << 20  # bytes read at a time
_LONGEST = 64 << 20  # bytes of one line; a longer one is no line of a log


class Follower:
    r"""The complete lines of a file that others append to, each once; what was there already comes first.

    A last line without its end waits for the rest. When another file takes the place of this one (rotation), the rest of
    the old one is read first; when it is cut off, reading starts at its beginning. A file that is not there yet has no
    lines. At most 64 MiB of a line are held; longer ones are left out and counted in ``dropped``. A context manager.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Follower(Path(folder, "log")) as follower:
    ...     before = list(follower.lines())
    ...     _ = Path(folder, "log").write_bytes(b"one\ntw")
    ...     before, list(follower.lines())
    ([], [b'one'])
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.dropped = 0
        self._file: BinaryIO | None = None
        self._rest = b""
        self._skipping = False

    def lines(self) -> Iterator[bytes]:
        """The lines that were completed since the last time, without their ends. Raises ``OSError``."""
        if self._file is None and not self._open():
            return
        yield from self._read()
        if self._replaced():
            yield from self._read()  # what was written between the last look and the change
            if self._rest and not self._skipping:
                yield self._rest  # nobody will complete it
            self.close()
            if self._open():
                yield from self._read()

    def _open(self) -> bool:
        try:
            self._file = self.path.open("rb")
        except FileNotFoundError:
            return False
        return True

    def _replaced(self) -> bool:
        """Whether the name stands for another file now. A file that was moved away is still the one to read."""
        assert self._file is not None, "lines() opened it"
        try:
            named = self.path.stat()
        except FileNotFoundError:
            return False
        return not os.path.samestat(named, os.fstat(self._file.fileno()))

    def _read(self) -> Iterator[bytes]:
        assert self._file is not None, "lines() opened it"
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)
            self._rest, self._skipping = b"", False
        while piece := self._file.read(_PIECE):
            *whole, self._rest = (self._rest + piece).split(b"\n")
            if whole and self._skipping:
                whole, self._skipping = whole[1:], False
            yield from whole
            if len(self._rest) > _LONGEST:
                self.dropped += not self._skipping
                self._rest, self._skipping = b"", True

    def close(self) -> None:
        """Close the file; the next look opens it anew."""
        if self._file is not None:
            self._file.close()
        self._file, self._rest, self._skipping = None, b"", False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
