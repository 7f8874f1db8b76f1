"""Which LlamaIndex is installed, and one clear line if it is none that this adapter works with."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

__all__ = ["OLDEST", "check"]

OLDEST = (0, 14, 6)  # older ones drop all parallel tool calls but one with the workflows of today
_INSTALL = "install it with pip install 'llmbuffer[llamaindex]>=1'"


def check() -> None:
    """Raise ``ImportError`` if llama-index-core is missing or too old; it says what was found and what to install."""
    try:
        found = version("llama-index-core")
    except PackageNotFoundError:
        raise ImportError(
            f"llmbuffer_llamaindex needs llama-index-core, which is not here: {_INSTALL}"
        ) from None
    if _numbers(found) < OLDEST:
        raise ImportError(
            f"llmbuffer_llamaindex needs llama-index-core 0.14.6 or newer, found {found}: {_INSTALL}"
        )


def _numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version.

    >>> _numbers("0.14.25.post1")
    (0, 14, 25)
    """
    return tuple(int(each) for each in re.findall(r"\d+", text)[:3])
