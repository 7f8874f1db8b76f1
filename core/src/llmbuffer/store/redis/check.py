"""What is wrong with a Redis server that keeps a store: its settings, and counts that do not agree with the rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from ..backend import ROOT
from .link import Link
from .rows import Keys, link_of, meta_of, packed_meta, session_of
from .scripts import LENGTHS

__all__ = ["counted_wrong", "server_findings"]

_TRIES, _SLICE = 3, 1_000


def server_findings(link: Link) -> Iterator[str]:
    """Settings under which the server may lose what it acknowledged."""
    memory = link.ask(lambda client: client.info("memory"))
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield (
            f"maxmemory-policy of the server is {policy!r}: it may drop keys when memory runs short; set it to noeviction"
        )
    files = link.ask(lambda client: client.info("persistence"))
    if not int(files.get("aof_enabled", 0)):
        yield (
            "appendonly of the server is 'no': what was saved since its last snapshot is lost when it stops; set appendonly "
            "yes, and appendfsync always"
        )
    for name in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"):
        if files.get(name, "ok") != "ok":
            yield f"{name} of the server is {files[name]!r}: look into its log, and make room on its disk"


def counted_wrong(link: Link) -> Iterator[str]:
    """Counts and indexes that are not what the rows say, in every space; of what is written meanwhile nothing is said."""
    pattern = "".join(f"\\{sign}" if sign in "*?[\\" else sign for sign in link.address.prefix)
    found = link.ask(lambda client: sorted(client.scan_iter(match=f"{pattern}{{*}}:state", count=1_000)))
    for name in found:
        keys = Keys(name.decode("utf-8", "surrogateescape").removesuffix("state"))
        for _ in range(_TRIES):
            before = _seq(link, keys)
            problems = _Counts(link, keys).problems()
            if _seq(link, keys) == before:
                yield from problems
                break


def _seq(link: Link, keys: Keys) -> Any:
    return link.ask(lambda client: client.hget(keys.state, "seq"))


class _Counts:
    """All counts of one space, and what they should be."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self.link, self.keys = link, keys

    def _hash(self, key: str) -> dict[bytes, bytes]:
        return self.link.ask(lambda client: dict(client.hscan_iter(key, count=_SLICE)))

    def _lengths(self, key: str) -> dict[bytes, int]:
        """The lengths of the values of a hash, which are not read."""
        found: dict[bytes, int] = {}
        fields = self.link.ask(lambda client: client.hkeys(key))
        for at in range(0, len(fields), _SLICE):
            part = fields[at : at + _SLICE]
            found.update(zip(part, self.link.run(LENGTHS, [key], part), strict=True))
        return found

    def _set(self, key: str) -> set[bytes]:
        return set(self.link.ask(lambda client: client.smembers(key)))

    def _scores(self, key: str) -> dict[bytes, float]:
        return dict(self.link.ask(lambda client: client.zrange(key, 0, -1, withscores=True)))

    def problems(self) -> list[str]:
        return [*self._nodes(), *self._records()]

    def _nodes(self) -> Iterator[str]:
        keys = self.keys
        links = {digest: link_of(value) for digest, value in self._hash(keys.links).items()}
        sessions = [session_of(key, value) for key, value in self._hash(keys.sessions).items()]
        lengths, guards = self._lengths(keys.bodies), self._scores(keys.guards)
        wanted = Counter(link.parent for link in links.values())
        wanted.update(row.tip for row in sessions)
        wanted.update(member[8:] for member in guards)
        for digest, link in links.items():
            if link.references != wanted[digest]:
                yield f"node {digest.hex()} is counted {link.references} times, and {wanted[digest]} refer to it"
        if loose := self._set(keys.loose) ^ {digest for digest, link in links.items() if not link.references}:
            yield f"{len(loose)} nodes are listed as unused and are not, or are not listed and are"
        if odd := lengths.keys() ^ links.keys():
            yield f"{len(odd)} nodes have no body, or bodies no node"
        if missing := sum(1 for link in links.values() if link.parent != ROOT and link.parent not in links):
            yield f"{missing} nodes have a parent that is not there"
        uses = Counter(row.context for row in sessions)
        if {key: int(count) for key, count in self._hash(keys.uses).items() if count.isdigit()} != uses:
            yield "the contexts of sessions are not those that are counted"
        state = self._hash(keys.state)
        if int(state.get(b"node_bytes", 0)) != sum(lengths.values()):
            yield f"node_bytes is {state.get(b'node_bytes')!r}, and bodies have {sum(lengths.values())} bytes"

    def _records(self) -> Iterator[str]:
        total = 0
        kinds = self._set(self.keys.kinds)
        for kind in sorted(each.decode("utf-8", "surrogateescape") for each in kinds):
            meta, body, owned, until = self.keys.of(kind)
            metas, lengths = self._hash(meta), self._lengths(body)
            total += sum(lengths.values())
            if odd := metas.keys() ^ lengths.keys():
                yield f"{len(odd)} records of kind {kind!r} have no body, or bodies no record"
            found = [meta_of(kind, key, value).record for key, value in metas.items()]
            by_owner = {
                len(each.owner).to_bytes(4, "big") + each.owner + each.key for each in found if each.owner
            }
            if by_owner != self._scores(owned).keys():
                yield f"the owners of records of kind {kind!r} are not those that are listed"
            expiring = {each.key: float(when) for each in found if (when := packed_meta(each)[1])}
            if expiring != self._scores(until):
                yield f"the times at which records of kind {kind!r} expire are not those that are listed"
            if kind == "context" and metas.keys() - self._hash(self.keys.uses).keys() - self._set(
                self.keys.idle
            ):
                yield "contexts that no session has are not listed as unused"
        if int(self._hash(self.keys.state).get(b"record_bytes", 0)) != total:
            yield f"record_bytes of the store is not {total}, which its records have"
