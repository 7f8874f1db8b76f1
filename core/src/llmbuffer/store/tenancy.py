"""Tenants of one store: each has a space, keys and routing keys of its own, and finds nothing of another's."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

from ..errors import StoreError
from .backend import Backend, Record
from .envelope import Envelope, Plain
from .keys import KeyLike
from .records import record_place
from .safe import HOME, Safe, marked_plain
from .sealed import Sealed, space_of

__all__ = ["envelope_for", "tenant_rows", "tenants_of"]


def envelope_for(
    backend: Backend, key: KeyLike | None, tenant: str | None, clock: Callable[[], float]
) -> Envelope:
    """The envelope that a store is opened with; marks a new store, and notes a new tenant of a sealed one.

    Raises ``SealError`` for a key that is missing, wrong or not wanted, and ``StoreError`` for a tenant that is no name.
    """
    if tenant is not None and not (isinstance(tenant, str) and tenant):
        raise StoreError(f"tenant {tenant!r} is no name: give a text that is not empty, or leave it out")
    if key is None:
        return _plain(backend, tenant)
    safe = Safe(backend, key, clock)
    if tenant is None:
        return Sealed(safe)
    space = space_of(safe, tenant)
    _noted(safe, space, tenant)
    return Sealed(safe, space)


def _plain(backend: Backend, tenant: str | None) -> Plain:
    marker = marked_plain(backend)
    if tenant is None:
        return Plain()
    if not marker.store_id:
        raise StoreError(
            "the marker of the store is damaged, and tenants need it: run verify(), and restore the store"
        )
    named = tenant.encode()
    space = blake2b(named, digest_size=16, person=b"llmbuffer-tenant").digest()
    return Plain(
        space, blake2b(named, key=marker.store_id, digest_size=32, person=b"llmbuffer-routes").digest()
    )


def _noted(safe: Safe, space: bytes, tenant: str) -> None:
    """Keep the tenant's name, sealed, so that keys can be rotated without a list of tenants from elsewhere."""
    if safe.backend.get(HOME, "tenant", space) is None:
        record = Record("tenant", space, b"", pinned=True)
        body = Sealed(safe, HOME).wrap(record_place(record), tenant.encode())
        safe.backend.append(HOME, [], None, [record._replace(body=body)])


def tenant_rows(safe: Safe) -> tuple[Record, ...]:
    """The records of all tenants; their keys are the spaces."""
    return tuple(safe.backend.records(HOME, "tenant"))


def tenants_of(safe: Safe) -> tuple[str, ...]:
    """The names of all tenants, sorted."""
    home = Sealed(safe, HOME)
    return tuple(sorted(home.unwrap(record_place(row), row.body).decode() for row in tenant_rows(safe)))
