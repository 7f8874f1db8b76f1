"""Recorded sessions through a dialect and its cache model, call by call: what each layout would read and cost.

``read_recordings`` yields the recordings of a file, ``replay`` takes them through. Everything here is simulated.

>>> from llmbuffer.replay import replay, sample_recordings
>>> replay(sample_recordings(), layout="recorded").total.sessions
1
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

from .agreement import dialect_of
from .compactions import COMPACTIONS
from .figures import Agreement, Figures, ReplayResult
from .noise import NOISE
from .reading import read_recordings
from .recordings import Agent, Call, Fold, Recording, Reported, Skipped
from .retention import Retention
from .run import LAYOUTS, PACES, PLACEMENTS, replay

__all__ = [
    "COMPACTIONS",
    "LAYOUTS",
    "NOISE",
    "PACES",
    "PLACEMENTS",
    "Agent",
    "Agreement",
    "Call",
    "Figures",
    "Fold",
    "Recording",
    "ReplayResult",
    "Reported",
    "Retention",
    "Skipped",
    "dialect_of",
    "read_recordings",
    "replay",
    "sample_recordings",
]


def sample_recordings() -> Iterator[Recording]:
    """The recordings of the sample file that ships with llmbuffer: one support session, written for this project.

    >>> [recording.id for recording in sample_recordings()]
    ['sample-support-1']
    """
    sample = resources.files("llmbuffer") / "data" / "sample_session.jsonl"
    with resources.as_file(sample) as path:
        yield from read_recordings(path)
