"""Which version of a framework is installed, and whether an adapter can use it; nothing is imported to find out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import msgspec

__all__ = ["Framework", "fits", "installed"]

Frameworks = Sequence[tuple[str, str]]
_CLAUSE = re.compile(r"\s*(>=|<=|==|!=|<|>)\s*(\d+(?:\.\d+)*)\s*")


class Framework(msgspec.Struct, frozen=True):
    """A distribution that an adapter serves: the ``version`` that is installed (``None``: none) and what is ``needed``.

    >>> Framework("langchain-core", ">=1.6,<2", "0.3.1").problem
    'langchain-core 0.3.1 is installed, needed is >=1.6,<2'
    """

    name: str
    needed: str
    version: str | None

    @property
    def problem(self) -> str | None:
        """One line that says what is wrong; ``None`` where the version fits."""
        if self.version is None:
            return f"{self.name} is not installed, needed is {self.needed}"
        if not fits(self.version, self.needed):
            return f"{self.name} {self.version} is installed, needed is {self.needed}"
        return None


def installed(
    frameworks: Frameworks, *, version: Callable[[str], str | None] | None = None
) -> list[Framework]:
    """What is installed of the frameworks that an adapter names, each ``(distribution, versions)``.

    An adapter needs one of them: those that are missing are left out where another one is there. ``version`` gives the
    version of a distribution, by default from the metadata of what is installed.

    >>> [found.problem for found in installed([("no-such-framework", ">=1")])]
    ['no-such-framework is not installed, needed is >=1']
    """
    find = _version if version is None else version
    found = [Framework(name, needed, find(name)) for name, needed in frameworks]
    return [each for each in found if each.version is not None] or found


def fits(version: str, needed: str) -> bool:
    """Whether a version lies within bounds, compared by its numbers alone.

    Raises ``ValueError`` for bounds that are no list of ``>=``, ``<=``, ``==``, ``!=``, ``<`` and ``>`` with numbers.

    >>> fits("1.7.2", ">=1.6,<2"), fits("2.0rc1", ">=1.6,<2"), fits("0.14", "==0.14.0")
    (True, False, True)
    """
    return all(_holds(_numbers(version), clause) for clause in needed.split(",") if clause.strip())


def _holds(version: list[int], clause: str) -> bool:
    read = _CLAUSE.fullmatch(clause)
    if read is None:
        raise ValueError(f"the bound {clause!r} cannot be read: use >=, <=, ==, !=, < or > and a version")
    bound = _numbers(read[2])
    one, two = _level(version, bound), _level(bound, version)
    return {
        ">=": one >= two,
        "<=": one <= two,
        "==": one == two,
        "!=": one != two,
        "<": one < two,
        ">": one > two,
    }[read[1]]


def _numbers(version: str) -> list[int]:
    leading = re.match(r"\d+(?:\.\d+)*", version.partition("!")[2] or version)
    return [int(each) for each in leading[0].split(".")] if leading else [0]


def _level(one: Iterable[int], other: Sequence[int]) -> tuple[int, ...]:
    numbers = list(one)
    return (*numbers, *[0] * (len(other) - len(numbers)))


def _version(distribution: str) -> str | None:
    from importlib import metadata  # a quarter of the time that importing llmbuffer may take

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
