"""Teams: several agents that talk in one conversation without losing the cache at every change of speaker.

>>> from llmbuffer.team import Member
>>> Member("writer", "You write.").name
'writer'
"""

from __future__ import annotations

from .asking import TeamRequest
from .choosing import Choice, choose
from .layouts import Separate, Shared
from .ledgers import TeamLedger
from .members import Cast, Member, cast_of, split_common
from .team import Team
from .telling import Said

__all__ = [
    "Cast",
    "Choice",
    "Member",
    "Said",
    "Separate",
    "Shared",
    "Team",
    "TeamLedger",
    "TeamRequest",
    "cast_of",
    "choose",
    "split_common",
]
