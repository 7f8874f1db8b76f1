"""The demo's own time: it goes on by a fixed number of seconds with every model call."""

from __future__ import annotations

from datetime import datetime, timedelta

__all__ = ["SECONDS_PER_CALL", "DemoClock"]

BEGIN = datetime(2026, 5, 14, 11, 0, 0)  # noqa: DTZ001 - the shop's own time; its records are of that day
SECONDS_PER_CALL = 7


class DemoClock:
    """Seconds since the session began; calling it reads them, ``tick`` goes on to the next model call.

    >>> clock = DemoClock()
    >>> clock.tick()
    >>> clock(), clock.shown
    (7.0, '2026-05-14 11:00:07')
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
        return f"{BEGIN + timedelta(seconds=self._now):%Y-%m-%d %H:%M:%S}"
