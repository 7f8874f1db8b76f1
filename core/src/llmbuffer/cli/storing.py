"""How the commands of ``llmbuffer store`` open a store: never a new one by mistake, and with keys that no command line shows."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from ..errors import SealError, StoreError
from ..store import Keyring, Store, open_store
from ..store.keys import KEY_BYTES
from .output import complain

__all__ = [
    "KEY",
    "NEW_KEY",
    "Json",
    "KeyFile",
    "Tenant",
    "Url",
    "Yes",
    "agreed",
    "is_there",
    "key_of",
    "keyring_of",
    "opened",
    "printable",
    "watching",
]

KEY = "LLMBUFFER_STORE_KEY"
NEW_KEY = "LLMBUFFER_STORE_NEW_KEY"

Url = Annotated[str, typer.Argument(metavar="URL", help="Such as sqlite:///sessions.db or redis://host/0.")]
Tenant = Annotated[
    str | None,
    typer.Option("--tenant", metavar="NAME", help="One tenant's share. Default: what is no tenant's."),
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--key-file", metavar="FILE", help=f"The key of a sealed store. Default: {KEY}, if set."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]

_HERE = f"here a key is given by --key-file FILE or in {KEY}"
_TEXT_BYTES = 1_024  # a file that is longer holds no key


def key_of(file: Path | None, variable: str = KEY) -> str | bytes | None:
    """The key in a file, as 32 bytes or as their hexadecimal or base64 text, else that of the environment, if there is one.

    Raises ``SealError`` for a file that holds no text and not 32 bytes.
    """
    if file is None:
        return os.environ.get(variable) or None
    with file.open("rb") as source:
        raw = source.read(_TEXT_BYTES)
        if os.name == "posix" and file.is_file() and os.fstat(source.fileno()).st_mode & 0o077:
            complain(f"{file} may be read by others: chmod 600 {file}")
    if len(raw) == KEY_BYTES:
        return raw
    try:
        return raw.decode("ascii").strip()
    except UnicodeDecodeError:
        raise SealError(
            f"{file} holds {len(raw)} bytes that are no text: give 32 bytes, or their hexadecimal or base64 text"
        ) from None


def keyring_of(old: str | bytes | None, new: str | bytes | None) -> Keyring:
    """The keys for a change from ``old`` to ``new``; the same key stays where there is no new one."""
    if old is None:
        raise SealError(f"rotate-key needs the key that opens the store now; {_HERE}")
    if new is None:
        return Keyring({"old": old}, "old")
    return Keyring({"old": old, "new": new}, "new")


@contextmanager
def opened(
    url: str,
    tenant: str | None = None,
    key: Any = None,
    *,
    reads: bool = False,
    creates: bool = False,
) -> Iterator[Store]:
    """A store that is there, or (``creates``) a new one; ``reads`` opens a file to read only.

    Raises ``StoreError`` for one that is not there, and for a tenant that a sealed store does not have.
    """
    if not creates:
        _check_there(url)
    with _told():
        if key is not None and tenant is not None and not creates:
            _check_tenant(url, tenant, key)
        store = open_store(_read_only(url) if reads else url, key=key, tenant=tenant)
    with store:
        yield store


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except SealError as error:
        raise SealError(f"{error}; {_HERE}" if "key=" in str(error) else str(error)) from None


def _check_tenant(url: str, tenant: str, key: Any) -> None:
    """A name that was mistyped would become a tenant of its own."""
    with open_store(_read_only(url), key=key) as whole:
        known = whole.tenants()
    if tenant not in known:
        raise StoreError(f"the store has no tenant {tenant!r}: it has {list(known)}")


def _check_there(url: str) -> None:
    missing = _missing(url)
    if missing is not None:
        raise StoreError(
            f"there is no store at {missing!r}: check the URL; a session that is saved there makes one"
        )


def is_there(url: str) -> bool:
    """Whether there is a store, so that opening it makes none. What a plugin opens is not looked for."""
    return _missing(url) is None


def _missing(url: str) -> str | None:
    scheme = url.partition(":")[0]
    if scheme == "memory":
        raise StoreError(f"{url!r} ends with this command: give the URL of a store that is kept")
    looks = _LOOKS.get(scheme)
    return None if looks is None else looks(url)


def _path_of(url: str) -> Path | None:
    """The file of a SQLite store; ``None`` where the URL names none."""
    path = url.removeprefix("sqlite:///").partition("?mode=")[0]
    return Path(path) if path and url.startswith("sqlite:///") else None


def _read_only(url: str) -> str:
    """The URL that opens a file without writing; that of a server as it is."""
    base, _, mode = url.partition("?mode=")
    return f"{base}?mode=ro" if _path_of(url) is not None and mode in ("", "rw") else url


def _no_file(url: str) -> str | None:
    path = _path_of(url)
    if path is None or path.is_dir() or (path.exists() and path.stat().st_size):
        return None
    return str(path)


def _no_schema(url: str) -> str | None:
    from ..store.postgres.errors import driver, explained
    from ..store.postgres.link import Address
    from ..store.postgres.schema import Statements

    psycopg, address = driver(), Address(url)
    try:
        with address.connect() as connection:
            connection.execute(Statements(address.schema).version)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return f"{address.shown}, schema {address.schema}"
    except psycopg.Error as error:
        raise explained(address.shown, error) from None
    return None


def _no_keys(url: str) -> str | None:
    from ..store.redis.link import Link

    link = Link(url)
    try:
        found = link.ask(lambda client: client.exists(f"{link.address.prefix}schema"))
    finally:
        link.close()
    return None if found else f"{link.address.shown}, keys {link.address.prefix}*"


# What is missing at a URL, for the stores that a first look would make.
_LOOKS: dict[str, Callable[[str], str | None]] = {
    "sqlite": _no_file,
    **dict.fromkeys(("postgresql", "postgres"), _no_schema),
    **dict.fromkeys(("redis", "rediss", "unix", "valkey", "valkeys"), _no_keys),
}


# Asking and waiting


def agreed(question: str, yes: bool, *, elsewhere: bool = False) -> bool:
    """Whether to go on: ``--yes``, or an answer on the terminal; without one, ``elsewhere``, or ``StoreError``."""
    if yes:
        return True
    if sys.stdin.isatty() and sys.stderr.isatty():
        typer.echo(f"{question} [y/N] ", nl=False, err=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")
    if not elsewhere:
        raise StoreError(f"{question.rstrip('?')}: without a terminal nobody can be asked; give --yes")
    return True


@contextmanager
def watching(what: str) -> Iterator[Callable[[int], object]]:
    """Say on standard error what is under way and for how long, if that is a terminal; gives how to tell how far it is."""
    err = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done: progress.update(task, description=f"{what}: {done:,}")


def printable(text: str) -> str:
    r"""A name out of a store, with what a terminal would take as a command in its escaped form.

    >>> printable("ann"), printable("\x1b[2J")
    ('ann', '\\x1b[2J')
    """
    return text if text.isprintable() else repr(text)[1:-1]
