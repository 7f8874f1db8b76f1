"""The fixture ``provider_server``: a simulated provider for one test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..simulate import ProviderServer

__all__ = ["provider_server"]

SERVER_MARK = "provider_server"


@pytest.fixture
def provider_server(request: pytest.FixtureRequest) -> Iterator[ProviderServer]:
    """A ``llmbuffer.simulate.ProviderServer`` that runs during the test, with empty caches.

    ``@pytest.mark.provider_server(replies=[…], rules={…})`` gives it arguments. Needs the extra ``simulate``; a test that
    asks for it without fails and says so.
    """
    from ..errors import DialectError
    from ..simulate import ProviderServer

    mark = request.node.get_closest_marker(SERVER_MARK)
    if mark is not None and mark.args:
        pytest.fail(f"@pytest.mark.{SERVER_MARK} takes named arguments: found {mark.args!r}", pytrace=False)
    server = ProviderServer(**(mark.kwargs if mark is not None else {}))
    try:
        server.start()
    except DialectError as error:
        pytest.fail(str(error), pytrace=False)
    try:
        yield server
    finally:
        server.stop()
