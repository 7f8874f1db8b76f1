"""The demo's own time: it goes on by a fixed number of seconds with every model call."""

from __future__ import annotations

from ..replay.noise import moment

__all__ = ["SECONDS_PER_CALL", "DemoClock"]

SECONDS_PER_CALL = 7


class DemoClock:
    """Seconds since the session began; calling it reads them, ``tick`` goes on to the next model call.

    >>> clock = DemoClock()
    >>> clock.tick()
    >>> clock(), clock.shown
    (7.0, '2026-03-01 09:00:07')
    """

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """Seconds since the session began."""
        return self._now

    def tick(self) -> None:
        """A model call was made."""
        self._now += SECONDS_PER_CALL

    @property
    def shown(self) -> str:
        """The time as prompts show it, to the second."""
        return f"{moment(self._now):%Y-%m-%d %H:%M:%S}"
