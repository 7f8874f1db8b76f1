"""Real servers for the tests: started in a folder of their own on a free port of the loopback interface, ended by id."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

_SERVERS = ("redis-server", "valkey-server")
_SAFE = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class RedisServer:
    """A server that keeps what it has in ``folder``; ``start`` after ``kill`` starts the same one again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.binary = next(filter(None, map(shutil.which, _SERVERS)), _SERVERS[0])
        self.folder, self.options = folder, options or _SAFE
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None
        self._started = False

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket(self) -> Path:
        return self.folder / "s"

    def start(self) -> None:
        """Wait until it answers. Another program may have been faster with the port: then it takes another one, once."""
        log = self._launch()
        if "Address already in use" in log and not self._started:
            self.port = free_port()
            log = self._launch()
        if "eady to accept connections" not in log:
            raise RuntimeError(f"the server did not start: {log[-500:]}")
        self._started = True

    def _launch(self) -> str:
        where = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder))
        command = [self.binary, *where, "--unixsocket", str(self.socket), *self.options]
        self.process = process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        told, log = Event(), list[str]()

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                log.append(line)
                if "eady to accept connections" in line:
                    told.set()
            told.set()

        self._reader = Thread(target=read, daemon=True)
        self._reader.start()
        told.wait()
        return "".join(log)

    def kill(self) -> None:
        """With SIGKILL: nothing is written any more."""
        assert self.process is not None
        self.process.kill()
        self._ended()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self._ended()

    def _ended(self) -> None:
        assert self.process is not None
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None


def has_redis() -> bool:
    """Whether there is a server to start."""
    return any(shutil.which(name) for name in _SERVERS)


def need_redis() -> None:
    """Skip without server or client; where CI runs, fail, so that nothing is left out there in silence."""
    missing = [] if importlib.util.find_spec("redis") is not None else ["redis (the client)"]
    if not has_redis():
        missing.append(" or ".join(_SERVERS))
    if missing and os.environ.get("CI"):
        pytest.fail(f"not installed: {missing}; these tests must run where CI is set")
    if missing:
        pytest.skip(f"not installed: {missing}")


@contextmanager
def redis_server(folder: Path, *options: str) -> Iterator[RedisServer]:
    """A running server; with a log that is written at once (AOF), unless options say otherwise."""
    server = RedisServer(folder, *options)
    try:
        server.start()
        yield server
    finally:
        server.stop()
