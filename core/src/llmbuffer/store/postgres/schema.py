"""The tables of a PostgreSQL store: how they are made, which version they have, and what is asked of them."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from ...errors import StoreError
from ..backend import Table

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["SCHEMA_VERSION", "TABLES", "Statements", "prepare"]

SCHEMA_VERSION = 1
TABLES: tuple[Table, ...] = ("nodes", "sessions", "records")

# Parents have smaller ids than their children, so that no damage can make a walk go round in circles. No foreign keys:
# an append and a sweep keep out of each other's way by a lock, and a check for each row would cost more than the row.
_TABLES = (
    "CREATE TABLE {s}.store_version (version INTEGER NOT NULL)",
    "CREATE SEQUENCE {s}.node_ids AS BIGINT",
    """CREATE TABLE {s}.nodes (id BIGINT PRIMARY KEY, space BYTEA NOT NULL, digest BYTEA NOT NULL,
    parent BIGINT NOT NULL, body BYTEA NOT NULL, note BYTEA NOT NULL, UNIQUE (space, digest))""",
    """CREATE TABLE {s}.sessions (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, space BYTEA NOT NULL,
    key BYTEA NOT NULL, tip BIGINT NOT NULL, revision BIGINT NOT NULL, context BYTEA NOT NULL, body BYTEA NOT NULL,
    writers BYTEA NOT NULL, UNIQUE (space, key))""",
    """CREATE TABLE {s}.records (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, space BYTEA NOT NULL,
    kind TEXT NOT NULL, key BYTEA NOT NULL, body BYTEA NOT NULL, owner BYTEA NOT NULL, expires DOUBLE PRECISION,
    weight BIGINT NOT NULL, pinned BOOLEAN NOT NULL, price DOUBLE PRECISION, UNIQUE (space, kind, key))""",
    "CREATE INDEX records_by_owner ON {s}.records (space, kind, owner)",
    "INSERT INTO {s}.store_version VALUES ({version})",
)

_RECORD = "kind, key, body, owner, expires, weight, pinned, price"
_INSERT = """INSERT INTO {s}.records (space, {record}) VALUES (%b, %s, %b, %b, %b, %s, %s, %s, %s)
    ON CONFLICT (space, kind, key) DO """
_SET = """UPDATE SET body = excluded.body, owner = excluded.owner, expires = excluded.expires,
    weight = excluded.weight, pinned = excluded.pinned, price = excluded.price"""
_SESSION = """SELECT s.key, coalesce(n.digest, CASE s.tip WHEN 0 THEN %b::bytea ELSE ''::bytea END), s.revision,
    s.context, s.body, s.tip, s.id FROM {s}.sessions s LEFT JOIN {s}.nodes n ON n.id = s.tip WHERE s.space = %b"""
_PARTS = {
    "insert": _INSERT,
    "set": _SET,
    "session": _SESSION,
    "record": _RECORD,
    "weight": _RECORD.replace("body", "''::bytea"),
    "version": str(SCHEMA_VERSION),
}

# For a change of keys: the id of a row is its place.
_PAGES: dict[Table, str] = {
    "nodes": """SELECT n.id, n.digest,
        coalesce(p.digest, CASE n.parent WHEN 0 THEN %(root)b::bytea ELSE ''::bytea END), n.body, n.note
        FROM {s}.nodes n LEFT JOIN {s}.nodes p ON p.id = n.parent
        WHERE n.space = %(space)b AND n.id > %(after)s ORDER BY n.id LIMIT %(count)s""",
    "sessions": """SELECT s.id, s.key,
        coalesce(n.digest, CASE s.tip WHEN 0 THEN %(root)b::bytea ELSE ''::bytea END), s.revision, s.context,
        s.body FROM {s}.sessions s LEFT JOIN {s}.nodes n ON n.id = s.tip
        WHERE s.space = %(space)b AND s.id > %(after)s ORDER BY s.id LIMIT %(count)s""",
    "records": """SELECT id, {record} FROM {s}.records
        WHERE space = %(space)b AND id > %(after)s ORDER BY id LIMIT %(count)s""",
}
_REBODIES: dict[Table, str] = {
    "nodes": "UPDATE {s}.nodes SET body = %b WHERE space = %b AND digest = %b AND body = %b",
    "sessions": "UPDATE {s}.sessions SET body = %b WHERE space = %b AND key = %b AND body = %b",
    "records": "UPDATE {s}.records SET body = %b WHERE space = %b AND kind = %s AND key = %b AND body = %b",
}


class _Text:
    """A statement of ``Statements``, with its schema in it from the first use on."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, statements: Statements, owner: type) -> str:
        text = statements.spelled(self.text)
        statements.__dict__[self.name] = text  # found there before this is asked again
        return text


class Statements:
    """The statements on the tables of one schema. ``schema`` is a name that needs no escape.

    >>> print(Statements("mine").version)
    SELECT version FROM "mine".store_version
    """

    version = _Text("SELECT version FROM {s}.store_version")
    # Append
    locked = _Text(
        "SELECT revision, body, writers FROM {s}.sessions WHERE space = %b AND key = %b FOR NO KEY UPDATE"
    )
    rebody = _Text("UPDATE {s}.sessions SET body = %b WHERE space = %b AND key = %b")
    ids = _Text("SELECT digest, id FROM {s}.nodes WHERE space = %b AND digest = ANY(%b::bytea[])")
    next_ids = _Text("SELECT nextval('{s}.node_ids') FROM generate_series(1, %s)")
    add_nodes = _Text("""INSERT INTO {s}.nodes (id, space, digest, parent, body, note)
        SELECT id, %b, digest, parent, body, note
        FROM unnest(%b::bigint[], %b::bytea[], %b::bigint[], %b::bytea[], %b::bytea[])
        AS new (id, digest, parent, body, note) ON CONFLICT (space, digest) DO NOTHING""")
    add_session = _Text("""INSERT INTO {s}.sessions (tip, revision, context, body, writers, space, key)
        VALUES (%s, %s, %b, %b, %b, %b, %b) ON CONFLICT (space, key) DO NOTHING""")
    set_session = _Text("""UPDATE {s}.sessions SET tip = %s, revision = %s, context = %b, body = %b,
        writers = %b WHERE space = %b AND key = %b""")
    # Sessions and nodes
    sessions = _Text("{session} ORDER BY s.id")
    session = _Text("{session} AND s.key = %b")
    sessions_alone = _Text("""SELECT key, tip, revision, context, body FROM {s}.sessions
        WHERE space = %b AND id > %s ORDER BY id""")
    digest = _Text("SELECT digest FROM {s}.nodes WHERE id = %s")
    chain = _Text("""WITH RECURSIVE chain (id, parent, digest, body, note) AS (
        SELECT id, parent, digest, body, note FROM {s}.nodes WHERE id = %s
        UNION ALL
        SELECT n.id, n.parent, n.digest, n.body, n.note FROM chain c JOIN {s}.nodes n ON n.id = c.parent
        WHERE c.parent < c.id)
        SELECT digest, body, note, parent FROM chain""")
    nodes = _Text("""SELECT n.digest, coalesce(p.digest, CASE n.parent WHEN 0 THEN %b::bytea ELSE ''::bytea END),
        n.body, n.note FROM {s}.nodes n LEFT JOIN {s}.nodes p ON p.id = n.parent AND p.id < n.id
        WHERE n.space = %b ORDER BY n.id""")
    # Records
    put = _Text("{insert}{set}")
    put_new = _Text("{insert}NOTHING")
    claim = _Text("""{insert}{set} WHERE records.owner = excluded.owner
        OR (records.expires <= %s AND NOT records.pinned)""")
    records = _Text("SELECT {record} FROM {s}.records WHERE space = %b")
    weights = _Text("""SELECT {weight} FROM {s}.records
        WHERE space = %b AND kind = %s ORDER BY id""")
    drop = _Text("DELETE FROM {s}.records WHERE space = %b AND kind = %s AND key = %b")
    # Upkeep
    forget_originals = _Text("DELETE FROM {s}.records WHERE space = %b AND kind = 'original' AND owner = %b")
    forget = _Text("DELETE FROM {s}.sessions WHERE space = %b AND key = %b")
    sweep_nodes = _Text("""WITH RECURSIVE live (id) AS (
        SELECT tip FROM {s}.sessions WHERE space = %(space)b
        UNION SELECT n.parent FROM live l JOIN {s}.nodes n ON n.id = l.id)
        DELETE FROM {s}.nodes n WHERE n.space = %(space)b AND NOT EXISTS (SELECT FROM live l WHERE l.id = n.id)""")
    sweep_expired = _Text("DELETE FROM {s}.records WHERE space = %b AND expires <= %s AND NOT pinned")
    sweep_contexts = _Text("""DELETE FROM {s}.records r WHERE r.space = %(space)b AND r.kind = 'context'
        AND NOT EXISTS (SELECT FROM {s}.sessions s WHERE s.space = %(space)b AND s.context = r.key)""")
    size = _Text("""SELECT (SELECT count(*) FROM {s}.nodes WHERE space = %(space)b),
        (SELECT coalesce(sum(octet_length(body)), 0)::bigint FROM {s}.nodes WHERE space = %(space)b),
        (SELECT count(*) FROM {s}.sessions WHERE space = %(space)b),
        (SELECT count(*) FROM {s}.records WHERE space = %(space)b),
        (SELECT coalesce(sum(octet_length(body)), 0)::bigint FROM {s}.records WHERE space = %(space)b),
        pg_total_relation_size('{s}.nodes') + pg_total_relation_size('{s}.sessions')
        + pg_total_relation_size('{s}.records')""")

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.tables = tuple(map(self.spelled, _TABLES))
        self.pages = {table: self.spelled(text) for table, text in _PAGES.items()}
        self.rebodies = {table: self.spelled(text) for table, text in _REBODIES.items()}
        self.vacuum = tuple(self.spelled(f"VACUUM (FULL, VERBOSE) {{s}}.{table}") for table in TABLES)

    def spelled(self, text: str) -> str:
        """A text with the schema and the common parts in it."""
        for name, part in _PARTS.items():
            text = text.replace(f"{{{name}}}", part)
        return text.replace("{s}", f'"{self.schema}"')

    def lock(self, space: bytes | None = None) -> int:
        """The number of the lock that appends to a space share and a sweep has alone; without a space, of the schema."""
        name = self.schema.encode() + (b"" if space is None else b"/" + space)
        return int.from_bytes(blake2b(b"llmbuffer " + name, digest_size=8).digest(), "big", signed=True)


def prepare(connection: Connection[Any], statements: Statements, where: str) -> None:
    """Create the tables where there are none, in one transaction; raises ``StoreError`` for those of another version."""
    from psycopg import errors

    try:
        found = connection.execute(statements.version).fetchone()
    except (errors.UndefinedTable, errors.InvalidSchemaName):
        _create(connection, statements, where)
        found = connection.execute(statements.version).fetchone()
    version = None if found is None else found[0]
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"store {where!r}: schema {statements.schema!r} has version {version}, and this llmbuffer knows version "
            f"{SCHEMA_VERSION}: update llmbuffer, or export with the version that wrote it and import here"
        )


def _create(connection: Connection[Any], statements: Statements, where: str) -> None:
    from psycopg import errors

    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [statements.lock()])
        schemas = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s"
        # Asked first, since IF NOT EXISTS needs the right to create even where nothing is to be created.
        if connection.execute(schemas, [statements.schema]).fetchone() is None:
            connection.execute(f'CREATE SCHEMA "{statements.schema}"')
        there = "SELECT to_regclass(%s)"
        if connection.execute(there, [f'"{statements.schema}".store_version']).fetchone() != (None,):
            return  # another process was faster
        try:
            for text in statements.tables:
                connection.execute(text)
        except errors.DuplicateTable as error:
            raise StoreError(
                f"store {where!r}: schema {statements.schema!r} holds tables of another program "
                f"({error.diag.message_primary}): give another name as ?llmbuffer_schema="
            ) from None
