"""``llmbuffer plugins``: what is installed, and where it came from."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from ..plugins import KINDS, Offer
from ..plugins import plugins as installed
from .output import console, print_json, reporting

__all__ = ["plugins"]


def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """List dialects, adapters and stores, with the distribution and version that brought them."""
    with reporting():
        found = {
            kind: [_described(offer) for _, offer in sorted(installed.offers(kind).items())] for kind in KINDS
        }
        if as_json:
            print_json(found)
            return
        table = Table("kind", "name", "distribution", "version", box=None, pad_edge=False)
        for kind, offers in found.items():
            for offer in offers or [{"name": "(none)"}]:
                table.add_row(kind, *(offer.get(key, "") for key in ("name", "distribution", "version")))
        console().print(table)


def _described(offer: Offer) -> dict[str, str]:
    return {"name": offer.name, "distribution": offer.distribution, "version": offer.version}
