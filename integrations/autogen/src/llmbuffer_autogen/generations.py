"""Which generations of AutoGen are installed, and what to say where one is missing, too old or there twice."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Literal

from llmbuffer.frameworks import fits

__all__ = ["CLASSIC", "Generation", "installed", "needed"]

Generation = Literal["classic", "agentchat"]

# The distributions that install the package `autogen`, and in which versions they do.
CLASSIC = {"autogen": "", "ag2": "<1", "pyautogen": "<0.10"}
_OLDEST_CLASSIC = ">=0.9"
_AGENTCHAT = {"autogen-agentchat": ">=0.7.5", "autogen-core": ">=0.7.5"}
_INSTALL = {
    "classic": "pip install 'llmbuffer[autogen]>=1'",
    "agentchat": "pip install 'llmbuffer[autogen-agentchat]>=1'",
}


def installed() -> dict[str, str]:
    """The distributions of AutoGen that are here, with their versions; by the names of their projects.

    >>> all(isinstance(version, str) for version in installed().values())
    True
    """
    found = {}
    for name in (*CLASSIC, *_AGENTCHAT):
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        found[name] = version
    return found


def needed(generation: Generation, found: Mapping[str, str] | None = None) -> str:
    """The version of that generation; ``found`` (default: ``installed()``) maps distributions to versions.

    Raises ``ImportError`` where it is missing, too old, or where two distributions have written the same package.

    >>> needed("classic", {"autogen": "0.14.1"})
    '0.14.1'
    >>> needed("classic", {"autogen": "0.14.1", "pyautogen": "0.9.0"})
    Traceback (most recent call last):
    ImportError: autogen 0.14.1 and pyautogen 0.9.0 install the same package `autogen` over each other: uninstall them all, then pip install 'llmbuffer[autogen]>=1'
    """
    here = installed() if found is None else dict(found)
    return _classic(here) if generation == "classic" else _agentchat(here)


def _classic(found: Mapping[str, str]) -> str:
    ours = {
        name: found[name]
        for name, versions in CLASSIC.items()
        if name in found and fits(found[name], versions)
    }
    if ours.get("autogen") == ours.get("ag2"):
        # Up to 0.14.0 autogen holds no files, it only asks for the ag2 of its own version.
        ours.pop("autogen", None)
    told = " and ".join(f"{name} {version}" for name, version in ours.items())
    if len(ours) > 1:
        raise ImportError(
            f"{told} install the same package `autogen` over each other: uninstall them all, then {_INSTALL['classic']}"
        )
    if not ours:
        others = ", ".join(f"{name} {version}" for name, version in found.items()) or "nothing"
        raise ImportError(
            f"the classic generation needs one of autogen, ag2<1, pyautogen<0.10; found {others}: {_INSTALL['classic']}"
        )
    [version] = ours.values()
    if not fits(version, _OLDEST_CLASSIC):
        [name] = ours
        # Another distribution of the same package would be installed over it.
        first = "" if name == "autogen" else f"uninstall {name}, then "
        raise ImportError(f"found {told}, which is too old: {first}{_INSTALL['classic']}")
    return version


def _agentchat(found: Mapping[str, str]) -> str:
    for name, versions in _AGENTCHAT.items():
        version = found.get(name)
        if version is None or not fits(version, versions):
            told = "no " + name if version is None else f"{name} {version}, which is too old"
            raise ImportError(
                f"the agentchat generation needs {name}{versions}; found {told}: {_INSTALL['agentchat']}"
            )
    return found["autogen-agentchat"]
