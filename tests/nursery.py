"""Writers that are forked from one process that has imported everything: a round costs no imports."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import IO

_FIELD = 64  # bytes of an answer
_ROOM = 65_536


class Child:
    """A forked writer, with the pipes of its standard streams."""

    def __init__(self, pid: int, nursery: Nursery, pipes: tuple[int, int, int]) -> None:
        self.pid, self._nursery = pid, nursery
        self.stdin: IO[str] = os.fdopen(pipes[0], "w")
        self.stdout: IO[str] = os.fdopen(pipes[1])
        self.stderr: IO[str] = os.fdopen(pipes[2])
        self._status: int | None = None

    def kill(self) -> None:
        """With SIGKILL. It stays a zombie until it is waited for, so the id is its own."""
        if self._status is None:
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code; of one that was killed, the signal, negative."""
        if self._status is None:
            self._status = self._nursery.status(self.pid)
        return self._status


class Nursery:
    """The process that forks, asked over a socket."""

    def __init__(self, asking: socket.socket) -> None:
        self._asking = asking

    def fork(self, *arguments: str) -> Child:
        """One more writer, with these arguments."""
        pairs = [os.pipe() for _ in range(3)]
        theirs = [pairs[0][0], pairs[1][1], pairs[2][1]]
        socket.send_fds(self._asking, [json.dumps(["fork", *arguments]).encode()], theirs)
        pid = int(self._asking.recv(_FIELD))
        for descriptor in theirs:
            os.close(descriptor)
        return Child(pid, self, (pairs[0][1], pairs[1][0], pairs[2][0]))

    def status(self, pid: int) -> int:
        """Wait for a child; its exit code."""
        self._asking.send(json.dumps(["wait", pid]).encode())
        return int(self._asking.recv(_FIELD))

    @contextmanager
    def writers(self, url: str, count: int, mode: str) -> Iterator[list[Child]]:
        """So many writers; those that still run in the end are killed."""
        running = [self.fork(mode, url, f"w{number}") for number in range(count)]
        try:
            yield running
        finally:
            for child in running:
                child.kill()
                child.wait()
                for pipe in (child.stdin, child.stdout, child.stderr):
                    pipe.close()


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A process that forks writers as long as the ``with`` block lasts."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            command = [sys.executable, "-m", "tests.nursery", str(theirs.fileno())]
            root = Path(__file__).parents[1]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=root)
        try:
            yield Nursery(ours)
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            process.wait()


def _warmed() -> None:
    """Import what a writer imports when it first needs it, and what its back end may need."""
    from tests.store_writers import session_in, turn

    from llmbuffer.store import open_store

    with open_store("memory:") as store, contextlib.redirect_stdout(None):
        turn(session_in(store, "warm"), Random(1))
    for name in (
        "llmbuffer.store.sqlite",
        "llmbuffer.store.redis",
        "llmbuffer.store.postgres",
        "redis",
        "psycopg",
    ):
        with contextlib.suppress(ImportError):  # a client that is not installed is not tried
            importlib.import_module(name)


def _serve(asked: socket.socket) -> None:
    from tests.store_writers import main

    _warmed()
    while True:
        message, descriptors, *_ = socket.recv_fds(asked, _ROOM, 3)
        if not message:
            return
        what, *arguments = json.loads(message)
        if what == "wait":
            _, status = os.waitpid(arguments[0], 0)
            asked.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        pid = os.fork()
        if pid == 0:
            asked.close()
            for place, descriptor in enumerate(descriptors):
                os.dup2(descriptor, place)
                os.close(descriptor)
            main(arguments)
            sys.exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        asked.send(str(pid).encode())


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
