"""What the agents of the contract talk about: the standard script, shortened."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..scripts import Script, handbook, standard_script, tools

__all__ = ["HANDBOOK", "SHORT", "TALK", "Recorded"]

# Above the minimum of every provider that has one of 1,024 tokens.
HANDBOOK = handbook(16)
SHORT: Script = standard_script(4, sections=16)
TALK: Script = standard_script(3, sections=16, with_tools=False)


class Recorded:
    """The tools of the script; ``runs`` names those that were run, in order.

    >>> recorded = Recorded()
    >>> recorded.tools["hold"]("7", 2), recorded.runs
    ('Parcel 7 is held for 2 days.', ['hold'])
    """

    def __init__(self) -> None:
        self.runs: list[str] = []
        self.tools: Mapping[str, Callable[..., str]] = {
            name: self._recorded(function) for name, function in tools().items()
        }

    def _recorded(self, function: Callable[..., str]) -> Callable[..., str]:
        from functools import wraps

        @wraps(function)
        def run(*args: object, **kwargs: object) -> str:
            self.runs.append(function.__name__)
            return function(*args, **kwargs)

        return run
