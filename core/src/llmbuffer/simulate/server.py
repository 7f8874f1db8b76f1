"""A simulated provider as an HTTP server in a thread of this process."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import DialectError
from ..tokens import TokenCounter
from ..usage import Usage
from .provider import Provider
from .replies import Replies, ReplyScript
from .scopes import Limits, Rules

if TYPE_CHECKING:
    from types import TracebackType

    import uvicorn
    from typing_extensions import Self

    from .log import SimulatedRequest

__all__ = ["ProviderServer", "bind", "make_server"]

_BACKLOG = 2048
_LINGER = 2  # seconds that streams get to end when the server stops


class ProviderServer:
    """A server that speaks OpenAI's, Anthropic's and Gemini's formats over the cache models; use it in a ``with`` block.

    ``replies`` is what the model says: a list of ``Reply`` objects, texts or mappings in the order of the requests, or a
    callable that gets an ``Asked``; afterwards, and without it, a default that depends on the prompt alone. ``rules``
    replace those of the dialects (see ``llmbuffer.simulate.scopes.chosen_rules``), ``clock`` is what entries expire by
    (seconds since the epoch), ``counter`` counts tokens, ``overflow`` models that a routing key takes so many requests a
    minute, ``latency`` gives the seconds before the first token and between two, ``keep_bodies`` keeps request bodies
    in the log, ``limits`` bound what is remembered, ``on_request`` gets each request when it has ended.

    Needs the extra ``simulate``.

    >>> with ProviderServer() as server:
    ...     server.url.startswith("http://127.0.0.1:"), server.usage().input_tokens
    (True, 0)
    """

    def __init__(
        self,
        *,
        replies: Replies = None,
        rules: Rules = None,
        clock: Callable[[], float] = time.time,
        counter: TokenCounter | None = None,
        overflow: bool = False,
        latency: tuple[float, float] = (0.0, 0.0),
        keep_bodies: bool = False,
        limits: Limits | None = None,
        on_request: Callable[[SimulatedRequest], None] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.provider = Provider(
            rules=rules,
            limits=limits,
            clock=clock,
            counter=counter,
            overflow=overflow,
            keep_bodies=keep_bodies,
            on_request=on_request,
        )
        self._script = ReplyScript(replies)
        self._latency = latency
        self._host, self._port = host, port
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._ended = threading.Event()

    def start(self) -> Self:
        """Listen; returns when requests are taken. Raises ``OSError`` if the port is in use."""
        self._socket = bind(self._host, self._port)
        try:
            self._server = make_server(self.provider, self._script, self._latency)
        except BaseException:
            self._socket.close()
            raise
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="llmbuffer-serve", daemon=True)
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.001)
        if not self._server.started:
            self.stop()
            raise DialectError("the server ended before it took requests: see the log of uvicorn")
        return self

    def _run(self) -> None:
        assert self._server is not None, "start() made it"
        assert self._socket is not None, "start() made it"
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._ended.set()

    def wait(self) -> None:
        """Return when the server has ended, which it does by itself only if it failed."""
        # Not by joining the thread: Python 3.11 takes it for ended when a signal interrupts that (bpo-45274).
        while self._thread is not None and not self._ended.wait(timeout=0.5):
            pass

    def stop(self) -> None:
        """Stop listening; streams under way get a few seconds to end."""
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
        if self._socket is not None:
            self._socket.close()
        self._server = self._thread = self._socket = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the server listens."""
        if self._socket is None:
            raise DialectError("the server does not run: use it in a with block, or call start()")
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def openai_url(self) -> str:
        """The ``base_url`` for ``openai.OpenAI``, and for every SDK that speaks its formats."""
        return f"{self.url}/v1"

    @property
    def anthropic_url(self) -> str:
        """The ``base_url`` for ``anthropic.Anthropic``."""
        return self.url

    @property
    def gemini_url(self) -> str:
        """The ``base_url`` of the ``http_options`` for ``genai.Client``."""
        return self.url

    @property
    def requests(self) -> tuple[SimulatedRequest, ...]:
        """What came in, in the order in which it ended; bounded, without prompt text."""
        return self.provider.log.requests

    def usage(self) -> Usage:
        """The sum over all requests."""
        return self.provider.log.usage()

    def summary(self) -> dict[str, Any]:
        """The sums as JSON."""
        return self.provider.log.summary()

    def reset(self) -> None:
        """Empty the caches and the log; the reply script goes on where it is."""
        self.provider.reset()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises ``OSError`` if the port is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(AttributeError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def make_server(provider: Provider, script: ReplyScript, latency: tuple[float, float]) -> uvicorn.Server:
    """The uvicorn server. Raises ``DialectError`` where the extra is missing."""
    try:
        import uvicorn

        from .app import Latency, build_app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise DialectError(
            f"the simulated provider needs {error.name}: pip install 'llmbuffer[simulate]>=1'"
        ) from None
    config = uvicorn.Config(
        build_app(provider, script, Latency(*latency)),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        backlog=_BACKLOG,
        timeout_graceful_shutdown=_LINGER,
        timeout_keep_alive=75,
    )
    return uvicorn.Server(config)
