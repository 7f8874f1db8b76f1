"""A llama.cpp server in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from threading import Timer
from typing import IO, TYPE_CHECKING

from ..errors import EngineError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["EngineServer"]

_LAST_WORDS = 10.0  # seconds: what ends by itself closes its output first, and says why after that


class EngineServer:
    """The native llama.cpp server on 127.0.0.1, on a free port, in a subprocess; a context manager that ends it.

    Arguments: ``model``, a GGUF file; ``slots``, how many requests run side by side; ``context``, tokens that each slot
    holds; ``slot_dir``, where slots are saved (default: slots cannot be saved); ``memory``, MiB of memory for prompts that
    left their slot (default: the engine's own 8,192; 0 for none); ``threads``; ``wait``, seconds until it must be ready.

    The server runs from ``start`` to ``stop``, or until this process ends, however it ends. ``url`` is its root: give
    ``url + "/v1"`` to an OpenAI client, ``url`` to an Anthropic client. Nothing but the loopback interface is listened on.

    >>> EngineServer("model.gguf", slots=4, context=4096)
    EngineServer('model.gguf', slots=4, stopped)
    """

    def __init__(
        self,
        model: str | Path,
        *,
        slots: int = 1,
        context: int = 16_384,
        slot_dir: str | Path | None = None,
        memory: int | None = None,
        threads: int = 1,
        wait: float = 60.0,
    ) -> None:
        self.model = Path(model)
        self.slots = slots
        self._options = {
            "model": str(model),
            "slots": slots,
            "context": context,
            "slot_dir": None if slot_dir is None else str(slot_dir),
            "memory": memory,
            "threads": threads,
        }
        self._wait = wait
        self._process: subprocess.Popen[str] | None = None
        self._log: IO[bytes] | None = None
        self._url: str | None = None

    @property
    def url(self) -> str:
        """The root of the running server, such as ``http://127.0.0.1:40123``. Raises ``EngineError`` if it is stopped."""
        if self._url is None:
            raise EngineError(f"{self!r} has no address: call start() first, or use it in a with block")
        return self._url

    @property
    def pid(self) -> int | None:
        """The id of the server's process; ``None`` while it is stopped."""
        return None if self._process is None else self._process.pid

    def start(self) -> Self:
        """Start the server and wait until it answers. Raises ``EngineError`` with the end of its log if it does not."""
        if self._process is not None:
            raise EngineError(f"{self!r} runs already: stop() it first")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process; stop() closes it
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter with our own module
            [sys.executable, "-m", "llmbuffer.engine.child", json.dumps(self._options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self._process.stdout is not None, "it is a pipe"
        # The end of the process ends the wait for its first line.
        limit = Timer(self._wait, self._process.kill)
        try:
            limit.start()
            address = self._process.stdout.readline().strip()
        except BaseException:  # interrupted, or no thread is to be had: nobody else will end it
            self.stop()
            raise
        finally:
            limit.cancel()
        if not address:
            said = self._end_of_log()
            self.stop()
            raise EngineError(f"no llama.cpp server for {str(self.model)!r}: {said}")
        self._url = address
        return self

    def stop(self) -> None:
        """End the server and wait until it is gone; what its slots and its memory held is lost. Twice does no harm."""
        process, self._process, self._url = self._process, None, None
        if process is not None:
            # Its standard input ends, and so does it; a server that hangs is killed.
            assert process.stdin is not None, "it is a pipe"
            process.stdin.close()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            assert process.stdout is not None, "the same"
            process.stdout.close()
        if self._log is not None:
            self._log.close()
            self._log = None

    def _end_of_log(self) -> str:
        assert self._process is not None, "it was started"
        assert self._log is not None, "the same"
        try:
            self._process.wait(timeout=_LAST_WORDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        telling = [line.strip() for line in lines if "error" in line.lower()] or lines
        return " | ".join(telling[-2:]) or f"it said nothing within {self._wait:g} seconds"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._url is None else self._url
        return f"EngineServer({self.model.name!r}, slots={self.slots}, {state})"
