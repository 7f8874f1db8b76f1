"""What a change of keys asks of a SQLite store: rows a page at a time, and new bodies for them."""

from __future__ import annotations

from typing import Any

from .backend import NodeRow, Record, Row, SessionRow, Table

__all__ = ["new_body", "page_query", "rows_of"]

# The id of a row is its place.
_PAGES: dict[Table, str] = {
    "nodes": """SELECT n.id, n.digest, coalesce(p.digest, iif(n.parent = 0, ?, x'')), n.body, n.note
        FROM nodes n LEFT JOIN nodes p ON p.id = n.parent WHERE n.space = ? AND n.id > ? ORDER BY n.id LIMIT ?""",
    "sessions": """SELECT s.id, s.key, coalesce(n.digest, iif(s.tip = 0, ?, x'')), s.revision, s.context, s.body
        FROM sessions s LEFT JOIN nodes n ON n.id = s.tip WHERE s.space = ? AND s.id > ? ORDER BY s.id LIMIT ?""",
    "records": """SELECT id, kind, key, body, owner, expires, weight, pinned, price
        FROM records WHERE ? NOT NULL AND space = ? AND id > ? ORDER BY id LIMIT ?""",
}
_ROWS: dict[Table, type[Any]] = {"nodes": NodeRow, "sessions": SessionRow, "records": Record}
_SET = " SET body = ? WHERE body = ? AND space = ?"


def page_query(table: Table) -> str:
    """The query for a page; it takes the root's digest, the space, the last place and the number of rows."""
    return _PAGES[table]


def rows_of(table: Table, found: list[tuple[Any, ...]], count: int) -> tuple[list[Row], bytes]:
    """The rows that were found, and where to go on."""
    more = found[-1][0].to_bytes(8, "big") if len(found) == count else b""
    return [_ROWS[table](*each[1:]) for each in found], more


def new_body(space: bytes, row: Row, body: bytes) -> tuple[str, tuple[Any, ...]]:
    """The statement that gives a row a new body if it has the old one, and its values."""
    if isinstance(row, Record):
        return f"UPDATE records{_SET} AND kind = ? AND key = ?", (body, row.body, space, row.kind, row.key)
    if isinstance(row, NodeRow):
        return f"UPDATE nodes{_SET} AND digest = ?", (body, row.body, space, row.digest)
    return f"UPDATE sessions{_SET} AND key = ?", (body, row.body, space, row.key)
