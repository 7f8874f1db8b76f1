"""What broke a cache: one neutral record, whoever reports it.

``served`` compares what a warm cache would have read with what the provider reported; ``difference`` finds where two
prompts part and why; ``volatile`` knows text that is another one each time.
"""

from __future__ import annotations

from .difference import Difference, cut, differ
from .passing import of_the_turn
from .record import CAUSES, FIXES, CacheBreak, Cause
from .served import diagnose

__all__ = ["CAUSES", "FIXES", "CacheBreak", "Cause", "Difference", "cut", "diagnose", "differ", "of_the_turn"]
