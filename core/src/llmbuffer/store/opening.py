"""Opening a store by its URL."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..errors import CapabilityError, StoreError
from ..plugins import plugins
from .backend import Backend
from .base import Store
from .keys import KeyLike
from .rights import CAPABILITIES
from .tenancy import envelope_for

if TYPE_CHECKING:
    from .policies import Policy

__all__ = ["open_store"]

_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)")


def open_store(
    url: str,
    *,
    capacity: int | str = "256 MiB",
    policy: str | Callable[..., Policy[Any]] = "arc",
    key: KeyLike | None = None,
    tenant: str | None = None,
    principal: str | None = None,
    capabilities: Iterable[str] = CAPABILITIES,
    clock: Callable[[], float] = time.time,
) -> Store:
    """Open a store: ``memory:``, ``sqlite:///path``, or the scheme of a plugin. A file that is not there is created.

    ``capacity`` bounds its values, in bytes or as text with a unit; ``policy`` (``arc``, ``lru``, ``lfu``, ``s3fifo``, ``cost``)
    says which go when there is no room. ``key`` seals all that is stored: 32 bytes, their hexadecimal or base64 text, a
    ``Keyring``, or a callable that returns one of these. ``tenant`` opens one tenant's share, which no other one finds
    anything in. ``principal`` and ``capabilities`` limit what may be done (see ``Store.for_principal``). ``clock`` gives
    seconds, for leases and for the time that values live.

    Raises ``StoreError`` for what cannot be opened, and says what was found and what to do; ``SealError`` for a key that is
    missing, wrong, weak, or given to a store that is not sealed.

    >>> open_store("memory:", capacity="1 MiB")
    Store(MemoryBackend)
    """
    room, backend = _bytes(capacity), _opened(url)
    try:
        envelope = envelope_for(backend, key, tenant, clock)
        store = Store(backend, envelope=envelope, capacity=room, policy=policy, clock=clock)
        return _limited(store, principal, frozenset(capabilities))
    except BaseException:
        backend.close()
        raise


def _limited(store: Store, principal: str | None, capabilities: frozenset[str]) -> Store:
    if principal is not None:
        return store.for_principal(principal, capabilities)
    if capabilities != set(CAPABILITIES):
        raise CapabilityError(f"capabilities {sorted(capabilities)} are somebody's: give principal=, too")
    return store


def _opened(url: str) -> Backend:
    scheme, colon, _ = url.partition(":") if isinstance(url, str) else ("", "", "")
    offer = plugins.find("stores", scheme) if colon else None
    if offer is None:
        raise StoreError(
            f"{_shown(url)!r} is no store: schemes found are {sorted(plugins.offers('stores'))}; give 'memory:' or 'sqlite:///path', or install the "
            "distribution that brings this one"
        )
    backend = offer.factory()(url)
    if not isinstance(backend, Backend):
        raise StoreError(
            f"distribution {offer.distribution!r} opened {_shown(url)!r} as a {type(backend).__name__}, which is no "
            "Backend: update or uninstall it"
        )
    return backend


def _shown(url: object) -> object:
    """The URL without what stands between scheme and host, which may be a password."""
    return re.sub(r"(?<=://)[^/?#]*@", "…@", url) if isinstance(url, str) else url


def _bytes(capacity: int | str) -> int:
    if isinstance(capacity, int) and not isinstance(capacity, bool) and capacity > 0:
        return capacity
    found = _SIZE.fullmatch(capacity.strip()) if isinstance(capacity, str) else None
    if found is None or found[2] not in _UNITS or not float(found[1]):
        raise StoreError(f"capacity {capacity!r} is no size: give bytes, or a text such as '256 MiB'")
    return int(float(found[1]) * _UNITS[found[2]])
