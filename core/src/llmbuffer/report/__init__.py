"""Reports: what a run read from the cache, what broke, and what it cost, as one self-contained HTML page.

``report(session)`` (or a ledger, or the results of a fan-out or a graph) and ``read_report(file)`` make a ``Report``;
``report.html()`` is the page, ``report.to_json()`` the figures, and a notebook shows the pictures by itself. No prompt
text is in any of them, unless ``show_text=True`` asks for the excerpts around each break.
"""

from __future__ import annotations

from .files import read_report
from .lines import LineReader
from .model import Bar, Branch, Report, Stretch, Sums
from .sessions import report

__all__ = ["Bar", "Branch", "LineReader", "Report", "Stretch", "Sums", "read_report", "report"]
