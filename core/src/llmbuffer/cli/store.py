"""``llmbuffer store``: look into stores, check them, clean them up, move them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from ..errors import UnknownSessionError
from ..store import Finding, SessionRecord, Store
from .output import complain, console, print_json, reporting
from .store_moves import export, import_
from .storing import (
    NEW_KEY,
    Json,
    KeyFile,
    Tenant,
    Url,
    Yes,
    agreed,
    key_of,
    keyring_of,
    opened,
    printable,
    watching,
)

__all__ = ["store"]

store = typer.Typer(
    help="Stores of sessions and stable contexts: look into them, check them, clean them up, move them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_KINDS = ("context", "compiled", "value", "original", "lease")


@store.command()
def stats(url: Url, *, tenant: Tenant = None, key_file: KeyFile = None, as_json: Json = False) -> None:
    """Say how much there is: sessions, messages, records of each kind, bytes.

    Bytes of messages and records are those of their bodies; of a server, bytes in all are what it estimates. A tenant is
    not told what the whole takes.
    """
    with reporting(), opened(url, tenant, key_of(key_file), reads=True) as found:
        document = _stats(found)
        if as_json:
            print_json(document)
            return
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column("what")
        table.add_column("how much", justify="right")
        for name, value in document.items():
            if isinstance(value, dict):
                for kind, count in value.items():
                    table.add_row(f"  {kind}", f"{count:,}")
            elif isinstance(value, list):
                table.add_row(name, Text(", ".join(map(printable, value)) or "(none)"))
            elif value is not None:
                table.add_row(name.replace("_", " "), _cell(value))
        console().print(table)


def _stats(found: Store) -> dict[str, Any]:
    sealed = found.envelope.sealed
    size = found.stats()
    return {
        "backend": type(found.backend).__name__,
        "sealed": sealed,
        "tenants": list(found.tenants()) if sealed and not found.space else None,
        **size._asdict(),
        "kinds": {kind: sum(1 for _ in found.backend.weights(found.space, kind)) for kind in _KINDS},
    }


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


@store.command()
def ls(url: Url, *, tenant: Tenant = None, key_file: KeyFile = None, as_json: Json = False) -> None:
    """List the sessions, those that were sent last at the end. Exit code 1: some are damaged, and left out.

    Nothing of what was said is shown. Times are of this machine's zone; "sent" is empty where a compaction or an edit left
    nothing of the last request.
    """
    with reporting(), opened(url, tenant, key_of(key_file), reads=True) as found:
        records = sorted(found.sessions(), key=lambda each: (each.sent.at if each.sent else 0.0, each.id))
        damaged = found.stats().sessions - len(records)
        if as_json:
            print_json({"sessions": list(map(_session, records)), "damaged": damaged})
        else:
            console().print(_sessions_table(records))
        if damaged > 0:
            complain(f"{damaged:,} damaged sessions are not listed: llmbuffer store verify says which")
            raise typer.Exit(1)


def _session(record: SessionRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "parent_id": record.parent_id,
        "model": record.model,
        "dialect": record.dialect,
        "messages": record.depth,
        "requests": record.requests,
        "epoch": record.epoch,
        "owner": record.owner,
        "fingerprint": record.fingerprint,
        "sent_at": None if record.sent is None else record.sent.at,
    }


def _sessions_table(records: Iterable[SessionRecord]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("session", overflow="fold")
    for title in ("messages", "requests", "epoch"):
        table.add_column(title, justify="right")
    for title in ("model", "dialect", "parent", "sent"):
        table.add_column(title)
    for each in records:
        named = each.id if each.name is None else f"{each.id} ({each.name})"
        counts = (each.depth, each.requests, each.epoch)
        texts = (each.model, each.dialect, each.parent_id or "", _time(each))
        cells = [f"{count:,}" for count in counts]
        table.add_row(Text(printable(named)), *cells, *(Text(printable(text)) for text in texts))
    return table


def _time(record: SessionRecord) -> str:
    if record.sent is None:
        return ""
    local = dt.datetime.fromtimestamp(record.sent.at, dt.timezone.utc).astimezone()
    return local.isoformat(" ", "seconds")


@store.command()
def verify(url: Url, *, tenant: Tenant = None, key_file: KeyFile = None, as_json: Json = False) -> None:
    """Read everything, and list what is not as it was written. Changes nothing. Exit code 1: something was found.

    Of a sealed store that is opened without --tenant, all tenants are read.
    """
    with reporting(), watching("reading everything"):
        key = key_of(key_file)
        found = list(_verified(url, tenant, key))
        if as_json:
            listed = [{"tenant": name, **msgspec.to_builtins(each)} for name, each in found]
            print_json({"ok": not found, "findings": listed})
        elif not found:
            typer.echo("everything is as it was written")
        for name, each in [] if as_json else found:
            of = "" if name is None else f", tenant {printable(name)}"
            typer.echo(f"{each.what} {printable(each.name)}{of}: {printable(each.problem)}")
        if found:
            raise typer.Exit(1)


def _verified(url: str, tenant: str | None, key: Any) -> Iterator[tuple[str | None, Finding]]:
    with opened(url, tenant, key, reads=True) as whole:
        yield from ((tenant, each) for each in whole.verify())
        tenants = _tenants(whole)
    for name in tenants:
        with opened(url, name, key, reads=True) as share:
            yield from ((name, each) for each in share.verify() if each.what not in ("file", "key"))


def _tenants(whole: Store) -> tuple[str, ...]:
    """The tenants beside the share that was opened, where the store knows them."""
    return whole.tenants() if whole.envelope.sealed and not whole.space else ()


@store.command()
def gc(
    url: Url,
    *,
    tenant: Tenant = None,
    key_file: KeyFile = None,
    vacuum: Annotated[
        bool, typer.Option("--vacuum", help="Overwrite what was removed, too; copies the whole store.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Remove messages and contexts that no session uses, and what has expired. On a terminal it asks first.

    Of a sealed store that is opened without --tenant, of all tenants. Exit code 1: --vacuum could not finish.
    """
    with reporting():
        key = key_of(key_file)
        with opened(url, tenant, key) as found:
            if not agreed(
                f"remove what no session uses from {type(found.backend).__name__}?", yes, elsewhere=True
            ):
                raise typer.Exit(1)
            with watching("sweeping"):
                swept = [found.gc()]
                for name in _tenants(found):
                    with opened(url, name, key) as share:
                        swept.append(share.gc())
                vacuumed = found.vacuum() if vacuum else None
        nodes, records = (sum(column) for column in zip(*swept, strict=True))
        if as_json:
            print_json({"nodes": nodes, "records": records, "vacuumed": vacuumed})
        else:
            typer.echo(f"removed {nodes:,} messages and {records:,} records")
        _check_vacuumed(vacuumed is not False)


def _check_vacuumed(done: bool) -> None:
    if not done:
        complain("others read the store, so old bytes are still there: llmbuffer store gc --vacuum later")
        raise typer.Exit(1)


@store.command()
def forget(
    url: Url,
    sessions: Annotated[list[str], typer.Argument(metavar="SESSION…", help="Ids; see llmbuffer store ls.")],
    *,
    tenant: Tenant = None,
    key_file: KeyFile = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete sessions and all that only they used, and overwrite it. Needs --yes, or an answer on the terminal.

    Forks keep what they share with them. Exit code 1: deleted, but not overwritten yet.
    """
    with reporting(), opened(url, tenant, key_of(key_file)) as found:
        for each in sessions:
            if found.backend.session(found.space, found.envelope.name("session", each)) is None:
                raise UnknownSessionError(
                    f"the store holds no session {each!r}: nothing was deleted; see store ls"
                )
        some = repr(sessions[0]) if len(sessions) == 1 else f"{len(sessions):,} sessions"
        if not agreed(f"delete {some} for ever?", yes):
            raise typer.Exit(1)
        nodes = records = 0
        vacuumed = True
        with watching("deleting") as told:
            for number, each in enumerate(dict.fromkeys(sessions), 1):
                gone = found.forget(each)
                nodes, records = nodes + gone.nodes, records + gone.records
                vacuumed = gone.vacuumed  # the last one overwrites what those before it left
                told(number)
        if as_json:
            print_json({"sessions": list(sessions), "nodes": nodes, "records": records, "vacuumed": vacuumed})
        else:
            typer.echo(f"deleted {some}: {nodes:,} messages, {records:,} records")
        _check_vacuumed(vacuumed)


@store.command("rotate-key")
def rotate_key(
    url: Url,
    *,
    key_file: KeyFile = None,
    new_key_file: Annotated[
        Path | None,
        typer.Option(
            "--new-key-file",
            metavar="FILE",
            help=f"The key from now on. Default: {NEW_KEY}, else the same key.",
        ),
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Seal everything anew, of all tenants, under a new key of the store that the new key opens, and the old one does not.

    Give the processes that use the store both keys first (a Keyring): they go on meanwhile. Needs --yes, or an answer on the
    terminal. Exit code 1: some rows are still under an older key of the store, or not overwritten: rotate once more.
    """
    with reporting():
        old, new = key_of(key_file), key_of(new_key_file, NEW_KEY)
        ring = keyring_of(old, new)
        with opened(url, None, ring) as found:
            asked = (
                "seal everything anew?"
                if new is None
                else "move the store to the new key, and lock the old one out?"
            )
            if not agreed(asked, yes):
                raise typer.Exit(1)
            with watching("sealing everything anew"):
                done = found.rotate()
        if as_json:
            print_json(msgspec.to_builtins(done))
        else:
            typer.echo(f"sealed {done.rows:,} rows anew, under key number {done.number} of the store")
        if done.left:
            complain(f"{done.left:,} rows were not sealed anew: rotate once more, and verify if they stay")
            raise typer.Exit(1)
        _check_vacuumed(done.vacuumed)


store.command("export")(export)
store.command("import")(import_)
