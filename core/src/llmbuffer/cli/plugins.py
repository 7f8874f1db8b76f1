"""``llmbuffer plugins``: what is installed, where it came from, and what of it is broken."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from ..frameworks import Framework
from ..plugins import KINDS, Offer
from ..plugins import plugins as installed
from .output import complain, console, print_json, reporting

__all__ = ["plugins"]


def plugins(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """List dialects, adapters and stores, with the distribution and version that brought them.

    Of adapters also their frameworks, found without importing them, and their capabilities. What is broken is one line.
    """
    with reporting():
        found = {kind: [offer for _, offer in sorted(installed.offers(kind).items())] for kind in KINDS}
        if as_json:
            listed = {kind: [_described(offer, kind) for offer in offers] for kind, offers in found.items()}
            print_json({**listed, "errors": _errors()})
            return
        table = Table(
            "kind", "name", "distribution", "version", "framework", "capabilities", box=None, pad_edge=False
        )
        for kind, offers in found.items():
            for offer in offers:
                table.add_row(*_row(kind, offer))
            if not offers:
                table.add_row(kind, "(none)")
        console().print(table)
        for error in _errors():
            complain(error["error"])


def _row(kind: str, offer: Offer) -> tuple[str, ...]:
    frameworks = ", ".join(map(_shown, offer.found()))
    return kind, offer.name, offer.distribution, offer.version, frameworks, ", ".join(offer.capabilities)


def _shown(framework: Framework) -> str:
    version = "(not installed)" if framework.version is None else framework.version
    return f"{framework.name} {version}"


def _described(offer: Offer, kind: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": offer.name,
        "distribution": offer.distribution,
        "version": offer.version,
    }
    if kind != "adapters":
        return told
    frameworks = [
        {"name": each.name, "version": each.version, "needed": each.needed, "problem": each.problem}
        for each in offer.found()
    ]
    return {**told, "frameworks": frameworks, "capabilities": list(offer.capabilities)}


def _errors() -> list[dict[str, str]]:
    """What cannot be used: plugins that are broken, and adapters whose framework is missing or does not fit."""
    out = [
        {"name": each.name, "distribution": each.distribution, "version": each.version, "error": each.message}
        for each in installed.broken
    ]
    out += [
        {"name": name, "distribution": offer.distribution, "version": offer.version, "error": offer.problem}
        for name, offer in sorted(installed.offers("adapters").items())
        if offer.problem is not None
    ]
    return out
