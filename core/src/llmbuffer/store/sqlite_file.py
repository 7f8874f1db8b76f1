"""The file of a SQLite store: its schema, how it is opened, and what its errors mean.

Nothing but SQLite ever opens the file: closing any descriptor of it gives up all locks that the process holds there (POSIX),
and another process would then remove the log under a connection that is still writing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from ..errors import CorruptStoreError, StoreError
from .sqlite_forks import is_lost

__all__ = ["DAMAGED_NAMES", "SCHEMA_VERSION", "Mode", "connect", "explained", "prepare"]

Mode = Literal["rw", "ro", "salvage"]

APPLICATION_ID = 0x6C6C6D62  # "llmb", in the header of the file
SCHEMA_VERSION = 1
BUSY_SECONDS = 30.0
DAMAGED_NAMES = (UnicodeDecodeError, OverflowError)  # in SQLite's own message, too

# Parents have smaller ids than their children, so that no damage can make a walk go round in circles. Sessions and
# records have an index beside their rows: a row that damage hides from one shows in the other.
_SCHEMA = (
    """CREATE TABLE nodes (id INTEGER PRIMARY KEY, space BLOB NOT NULL, digest BLOB NOT NULL, parent INTEGER NOT NULL,
    body BLOB NOT NULL, note BLOB NOT NULL, UNIQUE (space, digest))""",
    """CREATE TABLE sessions (id INTEGER PRIMARY KEY, space BLOB NOT NULL, key BLOB NOT NULL, tip INTEGER NOT NULL,
    revision INTEGER NOT NULL, context BLOB NOT NULL, body BLOB NOT NULL, UNIQUE (space, key))""",
    """CREATE TABLE records (id INTEGER PRIMARY KEY, space BLOB NOT NULL, kind TEXT NOT NULL, key BLOB NOT NULL,
    body BLOB NOT NULL, owner BLOB NOT NULL, expires REAL, weight INTEGER NOT NULL, pinned INTEGER NOT NULL,
    price REAL, UNIQUE (space, kind, key))""",
    "CREATE INDEX records_by_owner ON records (space, kind, owner, key, expires, weight, pinned, price)",
)


def connect(path: Path, mode: Mode) -> sqlite3.Connection:
    """A connection to the file as it is; raises ``StoreError`` where there is none to be had."""
    if path.is_dir():
        raise StoreError(f"{str(path)!r} is a directory: give the path of a file in it")
    if not path.parent.is_dir():
        raise StoreError(f"{str(path)!r}: there is no directory {str(path.parent)!r}; create it first")
    if mode != "rw" and not path.exists():
        raise StoreError(
            f"{str(path)!r} does not exist, and mode={mode} creates nothing: open it without mode="
        )
    if is_lost(path):
        raise StoreError(
            f"store {str(path)!r} was closed by the process that this one was forked from, while it was being forked: open "
            "stores after the fork, or close them after all children have begun"
        )
    wanted = "rwc" if mode == "rw" else "ro"
    with explained(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={wanted}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.text_factory = _lenient
        if mode == "salvage":
            # Then SQLite reads a file that is shorter than its header says as far as it goes.
            connection.execute("PRAGMA writable_schema = ON")
        return connection


def _lenient(text: bytes) -> str:
    """Damaged text is read all the same: its check value tells."""
    return text.decode("utf-8", "replace")


def prepare(connection: sqlite3.Connection, path: Path, mode: Mode) -> None:
    """Create the schema in a new file, or check that of an old one, and set what holds for a connection."""
    with explained(path):
        if mode == "rw":
            _create(connection)
            connection.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a loss of power
            connection.execute("PRAGMA secure_delete = ON")  # what was forgotten is overwritten
        _check_schema(connection, path)


def _create(connection: sqlite3.Connection) -> None:
    if _is_empty(connection):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _is_empty(connection):  # another process may have been faster
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        finally:
            connection.execute("COMMIT")


def _is_empty(connection: sqlite3.Connection) -> bool:
    found = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return bool(found == 0 and connection.execute("PRAGMA application_id").fetchone()[0] == 0)


def _check_schema(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != APPLICATION_ID:
        raise StoreError(
            f"{str(path)!r} is a database of another program (application id {application:#x}): give another path"
        )
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"{str(path)!r} has schema version {version}, and this llmbuffer knows version {SCHEMA_VERSION}: "
            "update llmbuffer, or export with the version that wrote it and import here"
        )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the errors of SQLite into ``StoreError``, with what to do."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        for sign, kind, advice in _ADVICE:
            if sign in text:
                raise kind(f"store {str(path)!r}: {text}; {advice}") from error
        raise StoreError(f"store {str(path)!r}: {type(error).__name__}: {text}; run verify()") from error
    except DAMAGED_NAMES as error:
        raise CorruptStoreError(f"store {str(path)!r}: {error}; {_RESTORE}") from error


_RESTORE = (
    "verify() lists what is damaged, the rest is readable; restore it from a backup, or open it with ?mode=salvage "
    "and export what is left"
)
# The words are those of sqlite3_errstr(), which Python 3.10 gives without a code.
_ADVICE: tuple[tuple[str, type[StoreError], str], ...] = (
    ("malformed", CorruptStoreError, _RESTORE),
    (
        "not a database",
        CorruptStoreError,
        "it is no SQLite database: give another path, or restore it from a backup",
    ),
    ("disk is full", StoreError, "nothing was written; make room, or forget sessions, and try again"),
    ("readonly database", StoreError, "the file is read-only; make it writable, or only read"),
    ("locked", StoreError, f"another process has held it for {BUSY_SECONDS:.0f} s; try again"),
    ("unable to open", StoreError, "check that the file and its directory may be read and written"),
    ("disk I/O error", StoreError, "nothing was written; check the disk, then run verify()"),
    ("no such table", CorruptStoreError, _RESTORE),
    ("no such column", CorruptStoreError, _RESTORE),
    ("closed database", StoreError, "it was closed; open it again"),
)
