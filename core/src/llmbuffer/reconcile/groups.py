"""The members of one conversation of a host, as far as they share one prefix."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..snapshot import Snapshot
from ..team.telling import role_of
from ..tools import Tool
from .casting import Common, Company, Part, common_of, merged_tools
from .declared import Change, take_out, take_persona
from .heading import Staged
from .hosts import Host, Leaves
from .instructions import Read, Seen, Templates, read_system, segments_of
from .policy import Policy
from .telling import Teller
from .tooling import Offer, read_tools

if TYPE_CHECKING:
    from ..session import Session
    from ..state import Anchor

__all__ = ["Group", "part_of"]

_KEEPS = 0.8  # of the common text has to stay, so that a member who joins late may change it


def part_of(texts: Sequence[str], tools: Sequence[Any] | None, policy: Policy, host: Host) -> Part:
    """What a member brings that was declared beforehand."""
    split = [take_persona(text) for text in texts]
    stable = tuple(take_out(text, policy.declared)[0] for text, _ in split)
    own = take_out("".join(own for _, own in split), policy.declared)[0]
    return Part(stable, own, _tools(tools, host))


def _tools(items: Sequence[Any] | None, host: Host) -> tuple[tuple[Any, Tool], ...]:
    """The last one of each name."""
    return tuple(dict(read_tools(items or (), host)).values())


class Group:
    """Stages the prompts of one conversation's members; used under the router's lock.

    Nothing is shared before two members are known, and what was decided then stays. ``note`` says what was decided, and why.
    """

    def __init__(self, company: Company) -> None:
        self._company = company
        self._teller = Teller(company.host, company.retold, named=company.named)
        self._inside: dict[str, None] = {}
        self._guests: set[str] = set()
        self._apart: set[str] = set()
        self._there: dict[str, Part] = {}  # what each who spoke here brought last
        self._common: Common | None = None
        self._tools: dict[str, tuple[Any, Tool]] = {}
        self._seen: dict[str, Seen] = {}
        self._staged: set[str] = set()
        self._decided = False
        self._sent: Snapshot | None = None
        self._tail: Anchor | None = None
        self.note = "team: one member so far"

    def shares(self, member: str) -> bool:
        """Whether a member has the prefix that others have."""
        return self._decided and (member in self._inside or member in self._guests)

    def staged(
        self,
        member: str,
        texts: Sequence[str],
        tools: Sequence[Any] | None,
        policy: Policy,
        templates: Templates,
        *,
        known: bool,
    ) -> Staged | None:
        """What goes out around the messages; ``None`` where the member keeps a prompt of its own.

        ``known`` tells that requests of the member went out before: then what moves is a planned break.
        """
        split = [take_persona(text) for text in texts]
        seen = self._seen.get(member, ())
        read, self._seen[member] = read_system(tuple(text for text, _ in split), seen, templates, policy)
        own, moved = take_out("".join(own for _, own in split), policy.declared)
        part = Part(read.stable, own, _tools(tools, self._company.host))
        self._enter(member, part, policy)
        left = self._left(member, part, policy)
        if left is None or self._common is None:
            return None
        persona = "\n".join(text.strip() for text in (*self._welcome(member), *left, own) if text.strip())
        changes = read.changes
        switched = known and member not in self._staged
        if switched:
            changes = (*changes, *_switched(self._common, left, own))
        self._staged.add(member)
        dynamic = (*read.moved, *segments_of(moved))
        return Staged(
            Read(self._common.texts, dynamic, changes),
            self._offer(part),
            role_of(member, persona, (), ()),
            self._sent,
            self._tail,
            self._observed,
            switched,
        )

    def tell(self, member: str, items: Sequence[Any]) -> tuple[list[Any], list[Leaves]]:
        """The messages as they read for every member, and their leaves."""
        found = self._teller.tell(member, items, self._company.parts.keys())
        if self._company.retold is None:
            self._company.retold = self._teller.retold
        return found

    def forget(self, member: str) -> None:
        """Let go of a member's part."""
        for kept in (self._seen, self._there):
            kept.pop(member, None)
        self._staged.discard(member)
        self._teller.forget(member)

    # Who shares

    def _enter(self, member: str, part: Part, policy: Policy) -> None:
        company, before = self._company, self._company.part(member, self._there)
        company.enter(member, part)
        new, self._there[member] = member not in self._there, part
        if new:
            company.meets(self._there)
        if not self._decided:
            self._decide(member, policy)
            return
        changed = before is None or _names(before.tools) != _names(part.tools)
        if changed and self.shares(member) and not self._gather():
            self._leaves(member)

    def _decide(self, member: str, policy: Policy) -> None:
        names = self._company.expected(member, self._there)
        found = self._company.decided(names, self._there, policy.team)
        if found is None:
            return
        self._decided, self.note = True, f"team: {found.choice.reason}"
        if found.choice.layout == "shared":
            self._inside, self._guests = dict.fromkeys(found.inside), set(found.guests)
            self._common = found.common
            self._gather()

    def _shared(self) -> Common | None:
        return common_of(self._parts(self._inside))

    def _parts(self, names: Iterable[str]) -> list[Part]:
        """What they bring; of one that was forgotten, nothing is known any more."""
        found = (self._company.part(name, self._there) for name in names)
        return [part for part in found if part is not None]

    def _left(self, member: str, part: Part, policy: Policy) -> tuple[str, ...] | None:
        """What of its texts is the member's own; ``None`` for one that does not share."""
        if self._common is None or member in self._apart:
            return None
        if member in self._guests:
            return part.texts
        left = self._common.own(part)
        if left is None and member in self._inside:  # its prompt was changed: less or more is common now
            common = self._shared()
        elif left is None:
            common = common_of([*self._parts(self._inside), part])
            if common is None or common.length < _KEEPS * self._common.length:
                common = None
        else:
            common = self._common
        if common is not None and (member in self._inside or self._joins(member)):
            self._common = common
            return common.own(part)
        self._inside.pop(member, None)
        guest = self._company.may_be_guest(part, self._common, policy.team)
        if guest and self._joins(member):
            self._inside.pop(member)
            self._guests.add(member)
            return part.texts
        self._leaves(member)
        return None

    def _leaves(self, member: str) -> None:
        """It keeps a prompt of its own from now on."""
        self._inside.pop(member, None)
        self._guests.discard(member)
        self._apart.add(member)

    def _joins(self, member: str) -> bool:
        self._inside[member] = None
        return self._gather()

    def _welcome(self, member: str) -> tuple[str, ...]:
        """What a member is told whose prompt is not built around the common text."""
        if member not in self._guests or not any(text.strip() for text in self._common_texts):
            return ()
        return (f"The instructions at the top are for {', '.join(self._inside)} alone; those of {member}:",)

    @property
    def _common_texts(self) -> tuple[str, ...]:
        return () if self._common is None else self._common.texts

    # What they share

    def _gather(self) -> bool:
        """Put the tools of all in one list, those that are there already in front; whether that is possible."""
        parts = self._parts((*self._inside, *sorted(self._guests)))
        tools, conflict = merged_tools(parts, self._company.host)
        if conflict:
            return False
        self._tools = {name: tools.get(name, known) for name, known in self._tools.items()} | tools
        return True

    def _offer(self, part: Part) -> Offer:
        names = [tool.name for _, tool in part.tools]
        return Offer(
            tuple(item for item, _ in self._tools.values()),
            tuple(tool for _, tool in self._tools.values()),
            tuple(name for name in self._tools if name not in names),
            tuple(name for name in self._tools if name in names),
        )

    def _observed(self, session: Session, snapshot: Snapshot) -> None:
        self._sent, self._tail = snapshot, session._state.previous_tail


def _names(tools: tuple[tuple[Any, Tool], ...]) -> list[tuple[str, bytes]]:
    return [(tool.name, tool.identity) for _, tool in tools]


def _switched(common: Common, left: Sequence[str], own: str) -> tuple[Change, ...]:
    """What moves to the tail when a member leaves its own prompt for the shared one."""
    found = [
        Change(f"system[{index}]", len(prefix), len(text))
        for index, ((prefix, _), text) in enumerate(zip(common.columns, left, strict=False))
        if text
    ]
    return tuple(found) or (Change("system[0]", 0, len(own)),)
