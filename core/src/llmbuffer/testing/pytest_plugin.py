"""What pytest gets from llmbuffer: the prefix guard, and the fixture ``provider_server`` (see ``testing.server``).

The guard watches that every conversation that any test runs keeps its prefix.

Turned on by ``llmbuffer_prefix_guard = true`` in the pytest configuration. A test that moves the prefix on purpose
(a thaw, an edited history, a fork with another system text) carries ``@pytest.mark.moves_prefix(reason="…")``; without a
reason the run stops at collection. A test that carries the mark and moves nothing fails as well, so that marks stay true.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from .server import SERVER_MARK, provider_server

if TYPE_CHECKING:
    from .guard import PrefixGuard

__all__ = ["provider_server"]

MARK = "moves_prefix"
OPTION = "llmbuffer_prefix_guard"
_MOVED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that turns the guard on."""
    parser.addini(
        OPTION, "check the prefix of every llmbuffer session that a test runs", type="bool", default=False
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark, and start watching if asked to."""
    config.addinivalue_line(
        "markers", f'{MARK}(reason="…"): this test moves the prefix of a session on purpose'
    )
    config.addinivalue_line("markers", f"{SERVER_MARK}(**arguments): arguments of the fixture of this name")
    if config.getini(OPTION):
        from .guard import PrefixGuard

        config.pluginmanager.register(_Watching(PrefixGuard()), "llmbuffer-prefix-guard")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse marks without a reason."""
    bare = [item.nodeid for item in items for mark in item.iter_markers(MARK) if not _reason(mark)]
    if bare:
        listed = "\n  ".join(dict.fromkeys(bare))
        raise pytest.UsageError(
            f'{MARK} needs a reason, as in @pytest.mark.{MARK}(reason="…"), at\n  {listed}'
        )


def _reason(mark: pytest.Mark) -> str:
    reason = mark.kwargs.get("reason")
    return reason.strip() if isinstance(reason, str) and not mark.args and len(mark.kwargs) == 1 else ""


class _Watching:
    """Watches while tests run, and fails those that moved a prefix without saying so."""

    def __init__(self, guard: PrefixGuard) -> None:
        from llmbuffer.session import WATCHERS

        self._guard, self._watchers = guard, WATCHERS
        WATCHERS.append(guard)

    def pytest_unconfigure(self) -> None:
        self._watchers.remove(self._guard)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, Any, Any]:
        return (yield from self._phase(item, "setup"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        result = yield from self._phase(item, "call")
        if item.get_closest_marker(MARK) is not None and not item.stash.get(_MOVED, False):
            pytest.fail(f"this test is marked {MARK} and moved no prefix: take the mark away", pytrace=False)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        try:
            return (yield from self._phase(item, "teardown"))
        finally:
            self._guard.sweep()

    def _phase(self, item: pytest.Item, when: str) -> Generator[None, Any, Any]:
        try:
            result = yield
        except BaseException:
            if text := self._unannounced(item):
                item.add_report_section(when, "prefix guard", text)
            raise
        if text := self._unannounced(item):
            pytest.fail(text, pytrace=False)
        return result

    def _unannounced(self, item: pytest.Item) -> str:
        moves = self._guard.take()
        if moves:
            item.stash[_MOVED] = True
        if not moves or item.get_closest_marker(MARK) is not None:
            return ""
        advice = f'A test that moves the prefix on purpose says so: @pytest.mark.{MARK}(reason="…")'
        return "the prefix of a session moved\n" + "\n".join([*moves, advice])
