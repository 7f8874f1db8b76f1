"""The way to a Redis or Valkey server: its URL, its client, and what its errors mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha1
from typing import Any, NamedTuple, TypeVar
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ...errors import CorruptStoreError, StoreError

__all__ = ["Address", "Link", "address_of"]

T = TypeVar("T")

PREFIX = "llmbuffer:"
SCHEMA_VERSION = b"1"
_TLS = ("rediss", "valkeys")
_OPTIONS = ("db", "prefix", "timeout", "username", "password")
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
_FORM = "give 'redis://user:password@host:6379/0', or 'unix:///path/redis.sock?db=0'"


class Address(NamedTuple):
    """What a URL says: ``shown`` is the URL without its password, ``prefix`` begins every key, ``options`` are the client's."""

    shown: str
    prefix: str
    options: dict[str, Any]


def address_of(url: str) -> Address:
    """Read a URL. ``redis`` and ``valkey`` are TCP, ``rediss`` and ``valkeys`` are TLS with certificates that are checked.

    Options behind the question mark: ``prefix`` (default ``llmbuffer:``), ``db``, ``timeout`` in seconds (default 30),
    ``username`` and ``password``; with TLS also ``ssl_ca_certs``, ``ssl_certfile`` and ``ssl_keyfile`` (paths),
    ``ssl_cert_reqs`` and ``ssl_check_hostname``. Raises ``StoreError``, which never shows the password.

    >>> address_of("redis://ann:secret@localhost:6380/2?prefix=app:").shown
    'redis://ann@localhost:6380/2?prefix=app:'
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise StoreError(f"the URL of the store names no port that is a number: {_FORM}") from None
    asked = dict(parse_qsl(parts.query, keep_blank_values=True))
    shown = _shown(parts, asked)
    known = _OPTIONS + (_TLS_OPTIONS if parts.scheme in _TLS else ())
    if unknown := sorted(asked.keys() - set(known)):
        raise StoreError(f"{shown!r}: unknown options {unknown}; known are {sorted(known)}")
    options: dict[str, Any] = {name: asked[name] for name in _TLS_OPTIONS if name in asked}
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() not in ("0", "false", "no")
    options["username"] = unquote(parts.username or "") or asked.get("username") or None
    options["password"] = unquote(parts.password or "") or asked.get("password") or None
    options["socket_timeout"] = _number(shown, "timeout", asked.get("timeout", "30"))
    path = unquote(parts.path)
    if parts.scheme == "unix":
        if parts.hostname or len(path) < 2:
            raise StoreError(f"{shown!r} names no socket: give three slashes and its absolute path")
        options["unix_socket_path"] = path
        database = asked.get("db", "0")
    else:
        options |= {"host": parts.hostname or "localhost", "port": port or 6379, "ssl": parts.scheme in _TLS}
        database = asked.get("db") or path.strip("/") or "0"
    if not re.fullmatch(r"[0-9]{1,6}", database):
        raise StoreError(f"{shown!r}: {database!r} is no number of a database; {_FORM}")
    return Address(shown, asked.get("prefix", PREFIX), {**options, "db": int(database)})


def _shown(parts: SplitResult, asked: dict[str, str]) -> str:
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}@" if parts.username else ""
    query = "&".join(f"{name}={value}" for name, value in asked.items() if name != "password")
    return f"{parts.scheme}://{user}{host}{parts.path}{'?' if query else ''}{query}"


def _number(shown: str, name: str, text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1e6:
        raise StoreError(f"{shown!r}: {name}={text!r} is no number of seconds above 0")
    return found


def client_of(address: Address) -> Any:
    """A client that never sends a command twice by itself: what may be sent again, only the caller knows."""
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise StoreError(
            f"{address.shown!r} needs the client of Redis: pip install 'llmbuffer[redis]>=1'"
        ) from None
    options = dict(address.options)
    if not options.pop("ssl", False):
        options = {name: value for name, value in options.items() if not name.startswith("ssl_")}
    else:  # old clients do not check the name of the host by themselves
        options |= {"ssl": True, "ssl_cert_reqs": options.get("ssl_cert_reqs", "required")}
        options.setdefault("ssl_check_hostname", options["ssl_cert_reqs"] != "none")
    return redis.Redis(
        **options,
        socket_connect_timeout=10.0,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        encoding_errors="surrogateescape",  # names that were damaged are read all the same
    )


class Link:
    """A server, through a pool of connections: thread-safe, and a forked process makes its own.

    What gets no answer is asked once more, so only ask for what has the same effect when it is done twice.
    """

    def __init__(self, url: str) -> None:
        self.address = address_of(url)
        self.client = client_of(self.address)
        self._closed = False
        self._shas: dict[str, str] = {}

    def ask(self, step: Callable[[Any], T]) -> T:
        """Do with the client what has the same effect when it is done twice."""
        return self.told(step)[0]

    def told(self, step: Callable[[Any], T]) -> tuple[T, bool]:
        """The same, and whether an answer was lost before."""
        from redis import exceptions

        if self._closed:
            raise StoreError(f"store {self.address.shown!r} is closed: open it again")
        with self.explained():
            try:
                return step(self.client), False
            except (exceptions.AuthenticationError, exceptions.BusyLoadingError):
                raise
            except (exceptions.ConnectionError, exceptions.TimeoutError):
                return step(self.client), True

    def run(self, script: str, keys: list[str], values: list[Any]) -> Any:
        """Run a script, which the server keeps under its digest."""
        return self.ask(lambda client: self._evaluated(client, script, keys, values))

    def run_told(self, script: str, keys: list[str], values: list[Any]) -> tuple[Any, bool]:
        """The same, and whether an answer was lost before."""
        return self.told(lambda client: self._evaluated(client, script, keys, values))

    def _evaluated(self, client: Any, script: str, keys: list[str], values: list[Any]) -> Any:
        from redis.exceptions import NoScriptError

        if script not in self._shas:
            self._shas[script] = sha1(script.encode(), usedforsecurity=False).hexdigest()
        try:
            return client.execute_command("EVALSHA", self._shas[script], len(keys), *keys, *values)
        except NoScriptError:
            return client.execute_command("EVAL", script, len(keys), *keys, *values)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the errors of the client into ``StoreError``, with what to do."""
        from redis.exceptions import RedisError

        try:
            yield
        except RedisError as error:
            raise _explained(self.address.shown, error) from error

    def close(self) -> None:
        """Let go of all connections."""
        self._closed = True
        self.client.connection_pool.disconnect()


def _explained(shown: str, error: Exception) -> StoreError:
    text = str(error) or type(error).__name__
    names = [each.__name__ for each in type(error).__mro__]
    for sign, advice in _ADVICE:
        if sign in names or sign in text:
            kind = CorruptStoreError if sign == "WRONGTYPE" else StoreError
            return kind(f"store {shown!r}: {text}; {advice}")
    return StoreError(f"store {shown!r}: {type(error).__name__}: {text}; run verify()")


_GONE = (
    "start the server, or check the URL; if it went away in the middle, the last write may be in or not, and "
    "doing the same again doubles nothing"
)
_CLUSTER = "this is a cluster: give a server that holds all keys, since a store is in one place"
_FULL = "nothing was written; raise maxmemory of the server, or forget sessions, and try again"
_REPLICA = "nothing was written; this is a replica that may only be read: give the URL of its primary"
_RIGHTS = (
    "the user of the URL may not do this: allow it scripts and the keys of the prefix, or use another one"
)
# Names of exceptions, and words of the server, which stand in the errors of scripts, too; the first that fits counts.
_ADVICE = (
    ("AuthenticationError", "give a user and a password that the server knows, redis://user:password@host"),
    ("BusyLoadingError", "the server has started just now: try again in a moment"),
    ("CERTIFICATE_VERIFY_FAILED", "give the certificate of its authority with ?ssl_ca_certs=path"),
    ("DB index", "the server has no database of this number: give another one in the URL"),
    ("WRONGTYPE", "another program has written under this prefix: give one of its own with ?prefix="),
    ("NoPermissionError", _RIGHTS),
    ("NOPERM", _RIGHTS),
    ("ermission", _RIGHTS),
    ("ReadOnlyError", _REPLICA),
    ("read only replica", _REPLICA),
    ("OutOfMemoryError", _FULL),
    ("maxmemory", _FULL),
    ("MISCONF", "nothing was written; the server cannot write to its disk: make room there, and try again"),
    ("MOVED", _CLUSTER),
    ("ClusterError", _CLUSTER),
    ("BUSY", "the server is in the middle of a long script: try again"),
    ("TimeoutError", f"no answer in time; {_GONE}"),
    ("ConnectionError", _GONE),
)
