"""Looking after the tables of a PostgreSQL store: writing them anew, and looking for damage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import driver
from .schema import TABLES, Statements

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["check", "vacuum"]

_VACUUM_TIME = "2s"  # it stands in the way of all who come after it while it waits for a table
_INDEXES = """SELECT i.indexrelid, c.relname, i.indisvalid, to_regprocedure('bt_index_check(regclass)') IS NOT NULL FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s ORDER BY c.relname"""


def vacuum(connection: Connection[Any], sql: Statements) -> bool:
    """Write the tables anew; False if one was held, is not this user's, or holds removed rows that are still seen."""
    kept: list[bool] = []

    def told(notice: Any) -> None:
        kept.append(_is_kept(notice))  # at once: a notice is gone after that

    before = _wait_at_most(connection, _VACUUM_TIME)
    connection.add_notice_handler(told)
    try:
        for text in sql.vacuum:
            connection.execute(text)
    except driver().errors.LockNotAvailable:
        return False
    finally:
        connection.remove_notice_handler(told)
        if not connection.closed:
            _wait_at_most(connection, before)
    return not any(kept)


def _wait_at_most(connection: Connection[Any], time: str) -> str:
    """Wait so long for a lock, from now on; returns how long it was before."""
    query = "SELECT current_setting('lock_timeout'), set_config('lock_timeout', %s, false)"
    found = connection.execute(query, [time]).fetchone()
    assert found is not None, "a SELECT without FROM has one row"
    return str(found[0])


def _is_kept(notice: Any) -> bool:
    """Whether a table was left out for want of a right, or holds rows that a snapshot still sees.

    The details of ``VERBOSE`` begin with how many rows those are, in whatever language the server speaks.
    """
    if notice.severity_nonlocalized == "WARNING":
        return True
    first = (notice.message_detail or "").partition(" ")[0]
    return bool(first.isdigit() and int(first) > 0)


def check(connection: Connection[Any], schema: str) -> list[str]:
    """What is wrong with the tables and indexes of a schema, in words."""
    found = [problem for table in TABLES for problem in _check_table(connection, f'"{schema}".{table}')]
    for number, name, valid, checkable in connection.execute(_INDEXES, [schema]).fetchall():
        problem = "it is not valid" if not valid else _check_index(connection, number) if checkable else None
        if problem is not None:
            found.append(f"index {name}: {problem}: REINDEX it")
    return found


def _check_table(connection: Connection[Any], name: str) -> list[str]:
    kinds = "SELECT relpersistence = 'p' FROM pg_class WHERE oid = to_regclass(%s)"
    logged = connection.execute(kinds, [name]).fetchone()
    if logged is None:
        return [f"table {name} is gone: restore the database from a backup"]
    return [] if logged[0] else [f"table {name} is not logged, a crash empties it: ALTER TABLE … SET LOGGED"]


def _check_index(connection: Connection[Any], number: int) -> str | None:
    """What ``amcheck`` says of an index; nothing where this user may not ask."""
    errors = driver().errors
    try:
        connection.execute("SELECT bt_index_check(%s::oid::regclass)", [number])
    except errors.InsufficientPrivilege:
        return None
    except (errors.IndexCorrupted, errors.DataCorrupted, errors.InternalError_) as error:
        return str(error.diag.message_primary)
    return None
