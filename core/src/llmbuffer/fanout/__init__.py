"""Fan-out: many workers on one cached prefix.

``fan_out`` (with a synchronous client), ``afan_out`` and ``fan_out_events`` (with an asynchronous one) fork a session for
each task and converse with all of them at the same time. Where the shared prefix is cold, one request goes first and the
others are held until it begins to be answered; where the provider routes by a key, the forks share it as long as that pays.
"""

from __future__ import annotations

from ..limits import Budget, Retry, RetryWait
from .api import afan_out, fan_out, fan_out_events
from .events import FanOutEvent
from .files import read_tasks
from .gate import Gate, Lead
from .keys import KeyRing
from .options import Options
from .result import Result, Results
from .tasks import Task, tasks_of

__all__ = [
    "Budget",
    "FanOutEvent",
    "Gate",
    "KeyRing",
    "Lead",
    "Options",
    "Result",
    "Results",
    "Retry",
    "RetryWait",
    "Task",
    "afan_out",
    "fan_out",
    "fan_out_events",
    "read_tasks",
    "tasks_of",
]
