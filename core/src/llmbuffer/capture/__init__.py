"""Recording what an SDK really sends, and what comes back.

A ``Recorder`` listens in the HTTP client of any SDK that is built on httpx2 or httpx (OpenAI, Anthropic, Google GenAI) and
writes one JSON line a request. Texts are pseudonyms by default, in which ``explain`` and ``BreakDetector`` find the same
breaks; keys are never written; no byte that is sent or received is changed.
"""

from __future__ import annotations

from .record import Captured, read_log
from .recorder import Recorder
from .redaction import redacted

__all__ = ["Captured", "Recorder", "read_log", "redacted"]
