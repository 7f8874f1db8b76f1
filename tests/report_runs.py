"""Runs to make reports of: a session with forks, and a request log with faults, without a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from llmbuffer import Message, Segment, Session, StableContext
from llmbuffer.bodies import read_prompt
from llmbuffer.dialects.anthropic_rules import rules_for
from llmbuffer.tokens import EstimateCounter

HOSTILE = (
    "</script><script>document.title='pwned'</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202egpj.exe\u2066",
    "👩‍🚀 ' & <b>",
    "عربي",
    "half \ud83d",
)
