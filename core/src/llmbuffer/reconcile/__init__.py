"""Serving hosts that own the history: a framework's whole prompt becomes a plan in terms of its own objects.

``session.reconcile`` recognises what it knows, converts what is new, keeps tools as first seen, moves dynamic text to the
tail and says where breakpoints go; a ``Router`` keeps a session for each conversation. Adapters describe their objects by a
``Host``.
"""

from __future__ import annotations

from .declared import dynamic_text, persona, unmarked
from .hosts import DictHost, Host, leaves_of
from .plan import Change, Plan, PlanMark, Tail
from .policy import Policy
from .recognition import Relation
from .router import Router

__all__ = [
    "Change",
    "DictHost",
    "Host",
    "Plan",
    "PlanMark",
    "Policy",
    "Relation",
    "Router",
    "Tail",
    "dynamic_text",
    "leaves_of",
    "persona",
    "unmarked",
]
