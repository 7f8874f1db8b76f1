"""What goes wrong between here and a PostgreSQL server, in words: what was found, what it left behind, what to do."""

from __future__ import annotations

from typing import Any

from ...errors import CorruptStoreError, StoreError

__all__ = ["LostError", "UnsureError", "driver", "explained", "is_lost", "is_passing"]


class LostError(StoreError):
    """There is no connection to be had; nothing was acknowledged."""


class UnsureError(StoreError):
    """The server went away while it wrote, and did not come back: it may have written, all or nothing."""


def driver() -> Any:
    """The module psycopg; raises ``StoreError`` where it is not installed."""
    try:
        import psycopg
    except ImportError as error:
        raise StoreError(
            f"PostgreSQL stores need psycopg ({error}): pip install 'llmbuffer[postgres]>=1'"
        ) from None
    return psycopg


def is_lost(error: Exception) -> bool:
    """Whether the connection went with it, so that nobody knows what became of the last statement."""
    state: str | None = getattr(error, "sqlstate", None)
    if state is None:
        return isinstance(error, driver().OperationalError)
    return state.startswith(("08", "25P03", "57P"))


def is_passing(error: Exception) -> bool:
    """Whether doing the same once more may succeed: lost connections, deadlocks, serialization failures.

    A login that was refused is not tried again: servers count those.
    """
    if is_lost(error):
        return not any(sign in str(error) for sign, _ in _REFUSED)
    return getattr(error, "sqlstate", None) in ("40001", "40P01")


def explained(where: str, error: Exception) -> StoreError:
    """An error of the driver as ``StoreError``. Of the server's words only the first line is told: others hold values."""
    state, text = getattr(error, "sqlstate", None), str(error)
    if state is None:
        text = " ".join(text.split())
        if not is_lost(error):
            return StoreError(f"store {where!r}: {type(error).__name__}: {text}; nothing was written")
        advice = next((advice for sign, advice in _SIGNS if sign in text), _GONE)
        return LostError(f"store {where!r}: {text}; {advice}")
    diagnosis: Any = getattr(error, "diag", None)
    text = diagnosis.message_primary or type(error).__name__
    kind, advice = _ADVICE.get(state) or _ADVICE.get(state[:2]) or (StoreError, "run verify()")
    return kind(f"store {where!r}: {text} (SQLSTATE {state}); {advice}")


_GONE = "nothing was acknowledged; check that the server runs and can be reached, then try again"
_NO_RIGHT = (
    "ask the owner of the database: for a first use, GRANT CREATE ON DATABASE, or CREATE SCHEMA … AUTHORIZATION for a schema "
    "that ?llmbuffer_schema= names; in a schema of another user, GRANT USAGE on it and ALL on its tables and sequences"
)
_RESTORE = "verify() lists what is damaged, the rest is readable; restore the database from a backup"
# libpq gives no SQLSTATE for a connection that was refused, so these are its words, or those of the server.
_REFUSED = (
    ("authentication failed", "check user and password in the URL, PGPASSWORD or the password file"),
    ("no password supplied", "give the password in the URL, PGPASSWORD or the password file"),
    ("pg_hba.conf", "the server does not let this user in from here: its pg_hba.conf needs a line"),
    (" does not exist", "create it first with CREATE DATABASE or CREATE ROLE, or correct the URL"),
)
_SIGNS = (
    *_REFUSED,
    ("too many clients", "close connections, or raise max_connections of the server"),
    ("starting up", "try again when it is up"),
)
_LOST: tuple[type[StoreError], str] = (LostError, _GONE)
_ADVICE: dict[str, tuple[type[StoreError], str]] = {
    "08": _LOST,
    "57": _LOST,
    "22": (StoreError, "nothing was written; a value does not fit its column"),
    "25006": (StoreError, "the server is read-only (a standby?); give the URL of the primary, or only read"),
    "25P03": _LOST,
    "28": (StoreError, "check user and password in the URL, PGPASSWORD or the password file"),
    "3D000": (StoreError, "create it first with CREATE DATABASE, or correct the URL"),
    "3F000": (CorruptStoreError, _RESTORE),
    "40": (StoreError, "others were in the way, and nothing was written; try again"),
    "42501": (StoreError, _NO_RIGHT),
    "42P01": (CorruptStoreError, f"a table of the store is gone; {_RESTORE}"),
    "42703": (CorruptStoreError, f"a column of the store is gone; {_RESTORE}"),
    "53100": (StoreError, "nothing was written; make room, or forget sessions, and try again"),
    "53200": (StoreError, "nothing was written; the server has no memory left, try again later"),
    "53300": (StoreError, "close connections, or raise max_connections of the server"),
    "54": (StoreError, "nothing was written; it is larger than the server takes"),
    "55P03": (StoreError, "nothing was written; another process holds it, try again"),
    "57014": (StoreError, "nothing was written; raise statement_timeout for this user, or try again"),
    "58": (StoreError, "nothing was written; check the server's disk and its log, then run verify()"),
    "XX001": (CorruptStoreError, _RESTORE),
    "XX002": (CorruptStoreError, f"REINDEX SCHEMA may help; {_RESTORE}"),
}
