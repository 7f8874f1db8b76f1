"""A real PostgreSQL server on the loopback interface, in a folder of its own, for the time of a ``with`` block.

The binaries come from the ``PATH`` or from where Debian puts them. ``initdb`` refuses to run as root: then the server runs
as the user ``postgres``, in a folder that this user owns.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import quote

import pytest

PATIENCE = 60  # seconds in which a server starts or stops, on a machine that is busy
CONFIGURATION = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 100
shared_buffers = 32MB
min_wal_size = 32MB
max_wal_size = 128MB
log_min_messages = warning
"""


@cache
def binaries() -> Path | None:
    """The folder with ``initdb`` and ``postgres``: the newest one."""
    on_path = shutil.which("initdb")
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True
    )
    candidates = [*folders, *([Path(on_path).resolve().parent] if on_path else [])]
    return next((each for each in candidates if (each / "initdb").exists()), None)


def need_postgres() -> None:
    """Skip without PostgreSQL or psycopg; where CI runs, fail, so that nothing is left out there in silence."""
    missing = [] if binaries() is not None else ["PostgreSQL (initdb and postgres)"]
    try:
        import psycopg  # noqa: F401 - whether it is there
    except ImportError:
        missing.append("psycopg")
    if missing and os.environ.get("CI"):
        pytest.fail(f"not installed: {missing}; these tests must run where CI is set")
    if missing:
        pytest.skip(f"not installed: {missing}")


def as_whom() -> dict[str, Any]:
    """Arguments of ``subprocess`` that make a child run as a user whom ``initdb`` accepts."""
    if os.geteuid() != 0:
        return {}
    import pwd

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    return {}


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_running(pid: int) -> bool:
    """Whether there is such a process, and it has not ended; the parent of an orphan may leave it as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class PostgresServer:
    """A cluster in ``folder`` with the superuser ``llm`` and a password made for it; ``start`` and ``stop`` its server."""

    def __init__(self, folder: Path, *, settings: str = "", initdb: Sequence[str] = ()) -> None:
        found = binaries()
        assert found is not None, "need_postgres() says so first"
        self.binaries, self.folder, self.data = found, folder, folder / "data"
        self.user, self.password, self.port = "llm", secrets.token_hex(12), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if as_whom():
            os.chown(folder, as_whom()["user"], as_whom()["group"])
        self._make(settings, initdb)

    def _make(self, settings: str, initdb: Sequence[str]) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o600)
        if as_whom():
            os.chown(secret, as_whom()["user"], as_whom()["group"])
        command = [self.binaries / "initdb", "-D", self.data, "-U", self.user, "--auth=scram-sha-256"]
        options = [f"--pwfile={secret}", "--encoding=UTF8", "--locale=C", "--no-sync", *initdb]
        self._run([*map(str, command), *options])
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(f"{CONFIGURATION}port = {self.port}\n{settings}\n")

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            timeout=PATIENCE,
            **as_whom(),
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        assert self._process is not None
        return self._process.pid

    def url(
        self, schema: str | None = None, *, user: str = "", password: str = "", database: str = "postgres"
    ) -> str:
        """The URL of a store in this server."""
        who = f"{user or self.user}:{quote(password or self.password)}"
        query = f"?llmbuffer_schema={schema}" if schema else ""
        return f"postgresql://{who}@127.0.0.1:{self.port}/{database}{query}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self.binaries / "postgres"), "-D", str(self.data)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **as_whom(),
            )
        options = ["-d", "postgres", "-h", "127.0.0.1", "-p", str(self.port), "-t", "1", "-q"]
        for _ in range(PATIENCE * 20):
            assert self._process.poll() is None, self.log()
            if subprocess.run([str(self.binaries / "pg_isready"), *options], check=False).returncode == 0:
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
        raise AssertionError(f"the server does not answer: {self.log()}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it: SIGINT ends all sessions and shuts down, SIGKILL is a crash. Returns when the process is gone."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def crash(self) -> None:
        """Kill the postmaster and every process of it with SIGKILL, and start it again."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        killed = [self.pid, *map(int, children.read_text().split())] if children.exists() else [self.pid]
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.stop(signal.SIGKILL)
        for _ in range(
            PATIENCE * 1_000
        ):  # a new server refuses to start while one of them still has the memory
            if not any(map(_is_running, killed)):
                break
            Event().wait(0.001)
        self.start()

    def log(self) -> str:
        """What the server said last."""
        return (self.folder / "log").read_text(errors="replace")[-2_000:]

    def dump(self) -> bytes:
        """What ``pg_dump`` writes, and the bytes that it spells in hexadecimal digits."""
        command = [str(self.binaries / "pg_dump"), "--dbname", self.url(), "--no-sync"]
        text = subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE).stdout
        spelled = re.findall(rb"\\\\x((?:[0-9a-f]{2})*)", text)
        return text + b"\0".join(bytes.fromhex(each.decode()) for each in spelled)

    def connect(self, **options: Any) -> Any:
        """A psycopg connection of the superuser, in autocommit."""
        import psycopg

        return psycopg.connect(self.url(), autocommit=True, **options)


@contextlib.contextmanager
def postgres(*, settings: str = "fsync = off", initdb: Sequence[str] = ()) -> Iterator[PostgresServer]:
    """A running server; its folder is removed in the end."""
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        server = PostgresServer(Path(name), settings=settings, initdb=initdb)
        server.start()
        try:
            yield server
        finally:
            server.stop()


class Cutting:
    """A proxy on the loopback interface that cuts a connection when a client sends ``COMMIT``: behind it, or before it.

    ``cuts`` says how often it does so; then it only passes on.
    """

    def __init__(self, port: int, *, cuts: int = 1, behind: bool = True) -> None:
        self.cuts, self.behind, self._target = cuts, behind, ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._threads = [Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                pair = (client, socket.create_connection(self._target), Event())
                self._sockets += pair[:2]
                for work in (self._from_client, self._from_server):
                    self._threads.append(Thread(target=work, args=pair, daemon=True))
                    self._threads[-1].start()

    def _from_client(self, client: socket.socket, server: socket.socket, cut: Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                if b"COMMIT\0" in data and self.cuts > 0:
                    self.cuts -= 1
                    cut.set()
                    if not self.behind:
                        break
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)  # the server ends the session, and undoes what it had begun

    def _from_server(self, client: socket.socket, server: socket.socket, cut: Event) -> None:
        with contextlib.suppress(OSError):
            while (data := server.recv(65_536)) and not cut.is_set():
                client.sendall(data)
        for each in (client, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # wakes the other thread

    def close(self) -> None:
        """Take no more clients, and wait until those that were here are gone."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE)
        for each in self._sockets:
            each.close()
