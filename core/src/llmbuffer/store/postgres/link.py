"""Connections to a PostgreSQL server: where it is, keeping some open, and coming back when one is lost."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import RLock
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import StoreError
from ..backend import MissingNodeError, StaleError
from .errors import UnsureError, driver, explained, is_lost, is_passing
from .schema import Statements, prepare

if TYPE_CHECKING:
    from psycopg import Connection

__all__ = ["Address", "Again", "Connections"]

T = TypeVar("T")

IDLE = (
    4  # connections that wait for the next call; more are opened when threads need them, and closed after it
)
PAUSES = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt
SCHEMA = "llmbuffer"

# What holds unless the URL says something else. A server that is silent is given up within about a minute.
_DEFAULTS = {
    "application_name": "llmbuffer",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
# What is acknowledged is on the disk, and no writer waits for ever, whatever the server's own defaults are.
_SETTINGS = """SELECT
    set_config('synchronous_commit', CASE s WHEN 'off' THEN 'on' ELSE s END, false),
    set_config('lock_timeout', CASE l WHEN '0' THEN '30s' ELSE l END, false)
    FROM (SELECT current_setting('synchronous_commit') AS s, current_setting('lock_timeout') AS l) AS now"""

_IDLE_STATUS = 0  # libpq's PQTRANS_IDLE


class Again(Exception):  # noqa: N818 - no error: the transaction is tried again
    """Another writer added the same rows while this one looked."""


class Address:
    """Where a store is: what its URL says, without showing the password.

    >>> Address("postgresql://ann:secret@db.example/llm?llmbuffer_schema=mine&sslmode=require")
    Address('postgresql://ann@db.example/llm', schema='mine')
    """

    def __init__(self, url: str) -> None:
        psycopg = driver()
        base, _, query = url.partition("?")
        asked = [each.partition("=")[::2] for each in query.split("&") if each]
        own = {"llmbuffer_schema": SCHEMA, "llmbuffer_vacuum": "full"}
        own |= {name: value for name, value in asked if name in own}
        rest = "&".join(f"{name}={value}" for name, value in asked if name not in own)
        self.schema, self.vacuums = own["llmbuffer_schema"], own["llmbuffer_vacuum"] == "full"
        if not re.fullmatch(r"(?!pg_)[A-Za-z_][A-Za-z0-9_]{0,62}", self.schema):
            raise StoreError(
                f"llmbuffer_schema={self.schema!r} is no name for a schema: give letters, digits and underscores, at most "
                "63, and no pg_ in front"
            )
        if own["llmbuffer_vacuum"] not in ("full", "off"):
            raise StoreError(f"llmbuffer_vacuum={own['llmbuffer_vacuum']!r} is unknown: use full or off")
        try:
            given = psycopg.conninfo.conninfo_to_dict(f"{base}?{rest}" if rest else base)
        except psycopg.Error:  # its text may show the password
            raise StoreError(
                "the URL is no PostgreSQL URL (it is not shown, since it may hold a password): give "
                "'postgresql://user:password@host:port/database', with special characters as %xx"
            ) from None
        self.parameters = {**_DEFAULTS, **given, "client_encoding": "utf8"}
        self.shown = _shown(given)

    def connect(self) -> Connection[Any]:
        """A new connection, each statement a transaction of its own unless it says BEGIN."""
        connection: Connection[Any] = driver().connect(autocommit=True, **self.parameters)
        return connection

    def __repr__(self) -> str:
        return f"Address({self.shown!r}, schema={self.schema!r})"


def _shown(given: dict[str, Any]) -> str:
    user = f"{given['user']}@" if given.get("user") else ""
    host = given.get("host") or given.get("hostaddr") or ""
    port = f":{given['port']}" if given.get("port") else ""
    return f"postgresql://{user}{host}{port}/{given.get('dbname') or ''}"


class Connections:
    """The connections of one process to one store; each is used by one caller at a time. A forked process opens its own."""

    def __init__(self, address: Address, statements: Statements, pause: Callable[[float], None]) -> None:
        self.address, self.statements, self._pause = address, statements, pause
        self._lock, self._process = RLock(), os.getpid()
        self._idle: list[Connection[Any]] = []
        self._closed = False

    @contextmanager
    def borrowed(self) -> Iterator[Connection[Any]]:
        """A connection for the time of a ``with`` block."""
        connection, process = self._taken(), os.getpid()
        try:
            yield connection
        finally:
            if process != os.getpid():
                _detach(connection)
            else:
                self._given_back(connection)

    def _taken(self) -> Connection[Any]:
        if self._process != os.getpid():
            self._leave_to_parent()
        with self._lock:
            if self._closed:
                raise StoreError(f"store {self.address.shown!r} is closed: open it again")
            if self._idle:
                return self._idle.pop()
        connection = self.address.connect()
        try:
            connection.execute(_SETTINGS)
            prepare(connection, self.statements, self.address.shown)
        except BaseException:
            connection.close()
            raise
        return connection

    def _given_back(self, connection: Connection[Any]) -> None:
        usable = not connection.closed and connection.info.transaction_status == _IDLE_STATUS
        with self._lock:
            if usable and not self._closed and len(self._idle) < IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _leave_to_parent(self) -> None:
        self._lock = RLock()  # another thread may have held it when the process was forked
        idle, self._idle, self._process = self._idle, [], os.getpid()
        for connection in idle:
            _detach(connection)

    def _drop_idle(self) -> None:
        """When one connection was lost, the others most likely were, too."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Let go of all of them."""
        if self._process != os.getpid():
            self._leave_to_parent()
        with self._lock:
            self._closed = True
        self._drop_idle()

    # Doing something, more than once where that helps

    def repeated(self, work: Callable[[Connection[Any]], T]) -> T:
        """What ``work`` returns; when the connection is lost, or others were in the way, it is done anew a few times.

        Errors of the driver are raised as ``StoreError``.
        """
        psycopg, where = driver(), self.address.shown
        for pause in (*PAUSES, None):
            try:
                with self.borrowed() as connection:
                    return work(connection)
            except Again:
                if pause is None:
                    raise StoreError(
                        f"store {where!r}: other writers kept adding the same rows: try again"
                    ) from None
            except psycopg.Error as error:
                if pause is None or not is_passing(error):
                    raise explained(where, error) from None
                if is_lost(error):
                    self._drop_idle()
            self._pause(pause)
        raise AssertionError("the last attempt returns or raises")

    def written(self, work: Callable[[Connection[Any]], T], merge: Callable[[list[T]], T] = max) -> T:  # type: ignore[assignment]  # counts and truth values
        """What ``work`` returns, done in one transaction that is on the disk.

        If the connection is lost while it is committed, ``work`` is done again, and must find out what is there already;
        ``merge`` chooses among the results, since the one that was not acknowledged may be the one that is in. Raises
        ``UnsureError`` where the server does not come back after that.
        """
        unsure: list[T] = []

        def attempt(connection: Connection[Any]) -> T:
            connection.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            try:
                unsure.append(work(connection))
            except BaseException:
                _roll_back(connection)
                raise
            try:
                connection.execute("COMMIT")
            except driver().Error as error:
                if not is_lost(error):
                    unsure.pop()
                    _roll_back(connection)
                raise
            return merge(unsure)

        try:
            return self.repeated(attempt)
        except (StaleError, MissingNodeError):  # found out in a transaction of its own: nothing is in
            raise
        except StoreError as error:
            if not unsure:
                raise
            raise UnsureError(
                f"{error}; the answer to the last write was lost before: it is in whole or not at all, and what is in is "
                "recognised when it is saved again"
            ) from None


def _detach(connection: Connection[Any]) -> None:
    """Close a connection that belongs to the parent process, without a word to the server: it would end that session."""
    if connection.closed:
        return
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, connection.fileno(), inheritable=False)
    os.close(nothing)
    connection.close()


def _roll_back(connection: Connection[Any]) -> None:
    """Undo what was begun; a connection on which that fails is not used again."""
    with suppress(driver().Error):
        connection.execute("ROLLBACK")
