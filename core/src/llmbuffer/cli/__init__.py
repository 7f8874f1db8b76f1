"""The command ``llmbuffer``; typer and rich come with the extra ``cli`` and are imported when it runs.

Exit codes: 0 fine, 1 something was found (lines were skipped, nothing was replayed), 2 wrong usage or a missing package,
130 stopped by Ctrl-C, 141 the reader of the output went away.
"""

from __future__ import annotations

import logging
import sys

__all__ = ["main"]

_PARTS = ("rich", "typer")


def main() -> None:
    """Run the command line; always ends with ``SystemExit``."""
    logging.getLogger("llmbuffer").addHandler(logging.NullHandler())  # the output says what the log would
    try:
        from .app import app
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _PARTS:
            raise
        sys.stderr.write(f"llmbuffer: the command line needs {missing}: pip install 'llmbuffer[cli]>=1'\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    app(prog_name="llmbuffer")
