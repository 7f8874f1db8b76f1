"""``llmbuffer store export`` and ``import``: stores as JSON lines, in files or through pipes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
import typer

from ..errors import SealError, StoreError
from ..store import Store
from .output import complain, print_json, reporting
from .storing import Json, KeyFile, Tenant, Url, Yes, agreed, is_there, key_of, opened, watching

__all__ = ["export", "import_"]

EXPORT_KEY = "LLMBUFFER_EXPORT_KEY"
_EVERY = 1_000  # lines from one word of progress to the next

_ExportKey = Annotated[
    Path | None,
    typer.Option(
        "--export-key-file",
        metavar="FILE",
        help=f"The key that seals the lines. Default: {EXPORT_KEY}, if set.",
    ),
]


def export(
    url: Url,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Default: standard output.")
    ] = None,
    tenant: Tenant = None,
    key_file: KeyFile = None,
    export_key_file: _ExportKey = None,
    plain: Annotated[bool, typer.Option("--plain", help="Write a sealed store in the clear.")] = False,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave out what cannot be read, and exit with 1.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Write everything but leases as JSON lines, for a backup or for another store.

    A file is complete or not there, and only its owner may read it. With --json, how many lines were written is told on
    standard output, or on standard error if the lines go there.
    """
    with reporting(), opened(url, tenant, key_of(key_file), reads=True) as found:
        seal = key_of(export_key_file, EXPORT_KEY)
        if found.envelope.sealed and seal is None and not plain:
            raise SealError(
                "the store is sealed, and the export would be in the clear: give --export-key-file FILE, or --plain"
            )
        if output is not None and output.exists() and not agreed(f"replace {output}?", yes):
            raise typer.Exit(1)
        lines = found.export(skip_damaged=skip_damaged, key=seal, plain=plain)
        with watching("writing lines") as told, _sink(output) as sink:
            number = sum(sink.write(line.encode() + b"\n") > 0 for line in _told(lines, told))
        _tell(output, number, as_json)
        _hint_at_tenants(found)
        if skip_damaged and (problems := len(found.verify())):
            complain(
                f"the store is damaged ({problems:,} findings: llmbuffer store verify): what is left was written"
            )
            raise typer.Exit(1)


def _tell(output: Path | None, number: int, as_json: bool) -> None:
    if as_json and output is not None:
        print_json({"lines": number, "file": str(output)})
    elif as_json:
        typer.echo(msgspec.json.encode({"lines": number}).decode(), err=True)
    elif output is not None:
        complain(f"wrote {number:,} lines to {output}")


def _hint_at_tenants(found: Store) -> None:
    others = found.tenants() if found.envelope.sealed and not found.space else ()
    if others:
        complain(f"not in it: the shares of {len(others):,} tenants; export each with --tenant")


@contextmanager
def _sink(output: Path | None) -> Iterator[BinaryIO]:
    """Where lines go; a file appears under its name when it is complete."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - of a descriptor
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(output)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def import_(
    url: Url,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="What export wrote. Default, and -: standard input.")
    ] = None,
    *,
    tenant: Tenant = None,
    key_file: KeyFile = None,
    export_key_file: _ExportKey = None,
    as_json: Json = False,
) -> None:
    """Take in what export wrote; a store that is not there is made.

    What is there already stays, and nothing is overwritten but values and compiled contexts. An export that breaks off, or that
    was changed, is an error that names the line; the lines before it are in, and importing again does no harm.
    """
    with reporting(), _source(file) as lines:
        seal = key_of(export_key_file, EXPORT_KEY)
        first = next(lines, b"")
        _check_head(first, sealed=seal is not None)
        new = not is_there(url)
        with (
            opened(url, tenant, key_of(key_file), creates=True) as found,
            watching("reading lines") as told,
        ):
            done = found.import_(_told(chain([first], lines), told), key=seal)
        if new:
            complain("a new store was made")
        if as_json:
            print_json({**msgspec.to_builtins(done), "created": new})
        else:
            typer.echo(
                f"took in {done.sessions:,} sessions, {done.nodes:,} messages, {done.records:,} records"
            )


@contextmanager
def _source(file: Path | None) -> Iterator[Iterator[bytes]]:
    if file is not None and str(file) != "-":
        with file.open("rb") as source:
            yield (line.strip() for line in source)
        return
    if sys.stdin.isatty():
        raise StoreError("nothing to import: give the FILE that export wrote, or pipe it in")
    yield (line.strip() for line in sys.stdin.buffer)


def _check_head(first: bytes, *, sealed: bool) -> None:
    """Look at the first line before a store is made for it. It is not shown: it may be anybody's text."""
    try:
        kind = msgspec.json.decode(first, type=dict[str, Any]).get("line")
    except msgspec.DecodeError:
        kind = None
    if kind == "llmbuffer-sealed-export" and not sealed:
        raise SealError(f"the export is sealed: give its key by --export-key-file FILE or in {EXPORT_KEY}")
    if kind == "llmbuffer-store" and sealed:
        raise SealError("a key was given for the export, and it is not sealed: leave the key out")
    if kind not in ("llmbuffer-store", "llmbuffer-sealed-export"):
        raise StoreError(
            f"no export of a store: its first line has {len(first):,} bytes and says nothing of one"
        )


def _told(lines: Iterable[Any], told: Callable[[int], object]) -> Iterator[Any]:
    number = 0
    for number, line in enumerate(lines, 1):
        if number % _EVERY == 0:
            told(number)
        yield line
