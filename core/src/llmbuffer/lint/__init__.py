"""Finding what will break a cache before it does: volatile text in prompts, and in the Python source that makes them.

``lint_source`` follows clocks, ids, sets and other passing values through a module into system prompts, instructions and
tools; ``lint_text`` and ``lint_body`` look at prompts themselves; ``lint_path`` takes files and folders. Source is parsed,
never imported or run.
"""

from __future__ import annotations

from .files import EXCLUDED, lint_path
from .findings import RULES, Finding
from .prompts import lint_body, lint_text
from .source import lint_source

__all__ = ["EXCLUDED", "RULES", "Finding", "lint_body", "lint_path", "lint_source", "lint_text"]
