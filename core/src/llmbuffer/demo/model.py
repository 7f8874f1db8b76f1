"""The model of the demo: random weights, and a vocabulary that knows the words of its texts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..engine import write_tiny_model
from .vocabulary import BytePairs

__all__ = ["write_demo_model"]


def write_demo_model(path: str | Path, texts: Iterable[str]) -> Path:
    """Write a GGUF file for the demo and return its path; the same texts give the same bytes.

    One layer with one small head, so that a prompt of 16,000 tokens takes less than a second on one thread; 1,500 byte-pair
    merges trained on the texts, so that a token is about three of their characters: with bytes for tokens, prompts would
    be as long as they are in characters. Raises ``LLMBufferError`` if the package ``gguf`` is not installed, ``OSError`` if
    the file cannot be written.
    """
    pairs = BytePairs.trained(texts)
    # One head of 32: with a narrower one, the engine is many times slower on the last, short batch of a prompt.
    return write_tiny_model(path, width=32, heads=1, merges=pairs.merges)
