"""Which LlamaIndex is installed, and one clear line if it is none that this adapter works with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from llmbuffer.frameworks import fits

__all__ = ["check"]

_OLDEST = "0.14.6"  # older ones drop all parallel tool calls but one with the workflows of today
_INSTALL = "install it with pip install 'llmbuffer[llamaindex]>=1'"


def check() -> None:
    """Raise ``ImportError`` if llama-index-core is missing or too old; it says what was found and what to install."""
    try:
        found = version("llama-index-core")
    except PackageNotFoundError:
        raise ImportError(
            f"llmbuffer_llamaindex needs llama-index-core, which is not here: {_INSTALL}"
        ) from None
    if not fits(found, f">={_OLDEST}"):
        raise ImportError(
            f"llmbuffer_llamaindex needs llama-index-core {_OLDEST} or newer, found {found}: {_INSTALL}"
        )
