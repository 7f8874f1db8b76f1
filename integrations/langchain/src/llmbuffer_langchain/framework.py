"""Whether the LangChain that is installed is one that the adapter knows."""

from __future__ import annotations

from llmbuffer.frameworks import installed

__all__ = ["NEEDED", "check"]

NEEDED = (("langchain-core", ">=1.6,<2"), ("langchain", ">=1.4,<2"), ("langgraph", ">=1.2,<2"))


def check(needed: tuple[tuple[str, str], ...] = NEEDED) -> None:
    """Raise ``ImportError``, in one line, where LangChain is missing or of a version that the adapter does not know.

    >>> check((("no-such-framework", ">=1"),))
    Traceback (most recent call last):
    ImportError: llmbuffer_langchain: no-such-framework is not installed, needed is >=1: pip install 'llmbuffer[langchain]>=1'
    """
    for each in needed:
        problem = installed([each])[0].problem
        if problem is not None:
            raise ImportError(f"llmbuffer_langchain: {problem}: pip install 'llmbuffer[langchain]>=1'")
