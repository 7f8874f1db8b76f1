"""Three ways to lay a recorded call out as a prompt: as it was, with changing text in the system prompt, and buffered."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from functools import partial
from typing import Protocol

from ..chain import Block, Node
from ..context import Segment, StableContext
from ..errors import LossyError
from ..layout import Head, Placement, render_head
from ..messages import Message, Text
from ..request import Request
from ..rules import CacheRules, Dialect
from ..session import Session
from ..snapshot import MarkAt, Snapshot
from ..state import State, attach, link
from ..tokens import TokenCounter
from ..usage import Usage
from .recordings import CLOCK, Agent, Call, Recording

__all__ = ["AsWritten", "Buffered", "Layout", "Setting"]
