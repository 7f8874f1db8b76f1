"""Which distribution of AutoGen is there, and what is said where there is none, an old one, or two."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llmbuffer_autogen
from llmbuffer.frameworks import fits
from llmbuffer_autogen.generations import CLASSIC, installed, needed
from llmbuffer_autogen.plugin import FRAMEWORKS


def test_one_classic_distribution_is_here_and_no_other_version() -> None:
    assert len({version for name, version in installed().items() if name in CLASSIC}) == 1
    assert needed("classic").startswith("0.")


@pytest.mark.parametrize(
    ("found", "version"),
    [
        ({"autogen": "0.14.1"}, "0.14.1"),
        ({"ag2": "0.14.0"}, "0.14.0"),
        ({"autogen": "0.14.0", "ag2": "0.14.0"}, "0.14.0"),
        ({"pyautogen": "0.9.0"}, "0.9.0"),
        ({"autogen": "0.14.1", "ag2": "1.2.1"}, "0.14.1"),
        ({"autogen": "0.14.1", "pyautogen": "0.10.0", "autogen-agentchat": "0.7.5"}, "0.14.1"),
    ],
)
def test_one_of_them_is_enough(found: dict[str, str], version: str) -> None:
    assert needed("classic", found) == version


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({}, "found nothing"),
        ({"ag2": "1.2.1"}, "found ag2 1.2.1"),
        ({"autogen": "0.8.1"}, "too old: pip install"),
        ({"pyautogen": "0.8.0"}, "too old: uninstall pyautogen, then pip install"),
        ({"autogen": "0.14.1", "ag2": "0.14.0"}, "autogen 0.14.1 and ag2 0.14.0 install the same package"),
        ({"autogen": "0.14.1", "pyautogen": "0.9"}, "uninstall them all"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(found: dict[str, str], told: str) -> None:
    with pytest.raises(ImportError, match=told) as caught:
        needed("classic", found)
    assert "\n" not in str(caught.value)
    assert "pip install 'llmbuffer[autogen]>=1'" in str(caught.value)


@pytest.mark.parametrize("found", [{}, {"autogen-agentchat": "0.4.0", "autogen-core": "0.4.0"}])
def test_the_other_generation_has_a_line_of_its_own(found: dict[str, str]) -> None:
    with pytest.raises(ImportError, match=r">=0\.7\.5; .*pip install 'llmbuffer\[autogen-agentchat\]>=1'"):
        needed("agentchat", found)


def test_importing_the_adapter_loads_no_framework() -> None:
    code = (
        "import sys, llmbuffer_autogen, llmbuffer_autogen.plugin\n"
        "print([name for name in sys.modules if name.partition('.')[0].startswith('autogen')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_names_are_found_when_they_are_used() -> None:
    assert set(llmbuffer_autogen.__all__) <= set(dir(llmbuffer_autogen))
    assert llmbuffer_autogen.BufferedConversableAgent.__name__ == "BufferedConversableAgent"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = llmbuffer_autogen.Nothing


@pytest.mark.parametrize(
    ("name", "version"),
    [
        *(("autogen", version) for version in ("0.8.1", "0.9", "0.14.1")),
        *(("ag2", version) for version in ("0.8.1", "0.9.9", "1.0")),
        *(("pyautogen", version) for version in ("0.8", "0.9.0", "0.10.0")),
    ],
)
def test_the_plugin_lists_the_versions_that_can_be_used(name: str, version: str) -> None:
    try:
        needed("classic", {name: version})
    except ImportError:
        usable = False
    else:
        usable = True
    assert fits(version, dict(FRAMEWORKS)[name]) is usable
