"""``llmbuffer store``: what it prints, what it refuses, and that it makes no store by mistake."""

from __future__ import annotations

import io
import json
import os
import pty
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.servers import free_port, need_redis, redis_server

from llmbuffer import Session, StableContext, cli
from llmbuffer.cli import storing
from llmbuffer.store import Keyring, new_key, open_store
from llmbuffer.tokens import EstimateCounter

PROGRAM = [sys.executable, "-c", "from llmbuffer.cli import main; main()"]
COMMANDS = ("stats", "ls", "verify", "gc", "rotate-key", "forget", "export", "import")
SECRET = "The tunnel is under the bakery."


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LLMBUFFER_STORE_KEY", "LLMBUFFER_STORE_NEW_KEY", "LLMBUFFER_EXPORT_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Run:
    def run(*arguments: str | Path, given: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "argv", ["llmbuffer", "store", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsysbinary.readouterr()
        assert b"Traceback" not in err
        assert SECRET.encode() not in err
        return Ran(int(ended.value.code or 0), out.decode(), err.decode())

    return run


def filled(url: str, **options: Any) -> None:
    """Two sessions that share a beginning, and a value."""
    with open_store(url, **options) as store:
        context = StableContext("gpt-5.5", SECRET)
        session = Session(context, store=store, session_id="ann", tokens=EstimateCounter())
        session.append([{"role": "user", "content": SECRET}, {"role": "assistant", "content": "I see."}])
        session.save()
        fork = session.fork()
        fork.append({"role": "user", "content": "And now?"})
        fork.save()
        store.put("answer", b"42")


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/sessions.db"
    filled(url)
    return url


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return key_file(tmp_path / "key")


def key_file(path: Path, key: str | bytes | None = None) -> Path:
    key = new_key() if key is None else key
    path.write_bytes(key if isinstance(key, bytes) else f"{key}\n".encode())
    path.chmod(0o600)
    return path


@pytest.fixture
def sealed(tmp_path: Path, key: Path) -> str:
    """A sealed store with two tenants beside what is nobody's."""
    url = f"sqlite:///{tmp_path}/sealed.db"
    for tenant in (None, "acme", "globex"):
        filled(url, key=key.read_text().strip(), tenant=tenant)
    return url


def damaged(url: str) -> None:
    """Change a byte in the first message, as a bad disk would."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE nodes SET body = x'00' || substr(body, 2) WHERE id = 1")
    connection.close()


def test_help_names_every_command(run: Run) -> None:
    shown = run("--help").out
    for command in COMMANDS:
        assert command in shown
        assert "--json" in run(command, "--help").out


def test_stats_count_what_is_there(run: Run, url: str) -> None:
    document = run("stats", url, "--json").document
    assert (document["sessions"], document["nodes"], document["sealed"]) == (2, 3, False)
    assert document["kinds"] == {"context": 1, "compiled": 0, "value": 1, "original": 0, "lease": 0}
    assert document["file_bytes"] > document["node_bytes"] > len(SECRET)
    shown = run("stats", url)
    assert ["sessions", "2"] in [line.split() for line in shown.out.splitlines()]
    assert SECRET not in shown.out


def test_ls_lists_sessions_without_their_text(run: Run, url: str) -> None:
    document = run("ls", url, "--json").document
    assert [(each["messages"], each["parent_id"]) for each in document["sessions"]] in (
        [(2, None), (3, "ann")],
        [(3, "ann"), (2, None)],
    )
    assert document["damaged"] == 0
    shown = run("ls", url)
    assert [line.split()[0] for line in shown.out.splitlines()].count("ann") == 1
    assert SECRET not in shown.out


def test_a_name_out_of_a_store_cannot_steer_the_terminal(run: Run, url: str) -> None:
    with open_store(url) as store:
        Session(StableContext("gpt-5.5"), store=store, session_id="\x1b[2Jann [bold]").save()
    shown = run("ls", url).out
    assert "\\x1b[2Jann [bold]" in shown
    assert "\x1b" not in shown


def test_a_whole_store_verifies(run: Run, url: str) -> None:
    assert run("verify", url) == Ran(0, "everything is as it was written\n", "")
    assert run("verify", url, "--json").document == {"ok": True, "findings": []}


def test_damage_is_a_finding_and_exits_with_1(run: Run, url: str) -> None:
    damaged(url)
    ran = run("verify", url, "--json")
    assert ran.code == 1
    assert ran.document["ok"] is False
    assert "node" in {each["what"] for each in ran.document["findings"]}
    assert run("verify", url).out.startswith("node ")
    assert SECRET not in run("verify", url).out


def test_a_damaged_session_is_counted_by_ls(run: Run, url: str) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE sessions SET body = x'00' WHERE id = 1")
    connection.close()
    ran = run("ls", url, "--json")
    assert (ran.code, ran.document["damaged"], len(ran.document["sessions"])) == (1, 1, 1)
    assert "1 damaged sessions are not listed" in ran.err


def test_gc_removes_what_no_session_uses(run: Run, url: str) -> None:
    with open_store(url) as store:
        store.backend.forget(b"", b"ann")
        fork = store.sessions()[0].id
        store.backend.forget(b"", fork.encode())
    assert run("gc", url, "--json").document == {"nodes": 3, "records": 1, "vacuumed": None}
    ran = run("gc", url, "--vacuum")
    assert (ran.code, ran.out) == (0, "removed 0 messages and 0 records\n")
    assert SECRET.encode() not in Path(url.removeprefix("sqlite:///")).read_bytes()


def test_gc_says_when_it_could_not_overwrite(run: Run, url: str) -> None:
    reader = sqlite3.connect(url.removeprefix("sqlite:///"))
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM nodes").fetchone()
    try:
        with open_store(url) as store:
            store.drop("answer")
        ran = run("gc", url, "--vacuum", "--json")
    finally:
        reader.close()
    assert (ran.code, ran.document["vacuumed"]) == (1, False)
    assert "gc --vacuum later" in ran.err


def test_forget_needs_a_yes_where_nobody_can_be_asked(run: Run, url: str) -> None:
    ran = run("forget", url, "ann")
    assert (ran.code, ran.out) == (2, "")
    assert (
        ran.err
        == "llmbuffer: error: delete 'ann' for ever: without a terminal nobody can be asked; give --yes\n"
    )
    assert run("stats", url, "--json").document["sessions"] == 2


def test_forget_deletes_a_session_and_keeps_its_fork(run: Run, url: str) -> None:
    ran = run("forget", url, "ann", "--yes", "--json")
    assert ran.code == 0
    assert ran.document == {"sessions": ["ann"], "nodes": 0, "records": 0, "vacuumed": True}
    [left] = run("ls", url, "--json").document["sessions"]
    assert run("forget", url, left["id"], "--yes").out.startswith(f"deleted {left['id']!r}: 3 messages")
    assert SECRET.encode() not in Path(url.removeprefix("sqlite:///")).read_bytes()


def test_forget_deletes_nothing_if_one_is_unknown(run: Run, url: str) -> None:
    ran = run("forget", url, "ann", "bob", "--yes")
    assert (ran.code, ran.out) == (2, "")
    assert "no session 'bob': nothing was deleted" in ran.err
    assert run("stats", url, "--json").document["sessions"] == 2


# Moving


def test_an_export_makes_an_equal_store(run: Run, url: str, tmp_path: Path) -> None:
    lines = run("export", url)
    assert (lines.code, lines.err) == (0, "")
    copy = f"sqlite:///{tmp_path}/copy.db"
    ran = run("import", copy, "--json", given=lines.out.encode())
    assert ran.document == {"nodes": 3, "sessions": 2, "records": 1, "created": True}
    assert "a new store was made" in ran.err
    assert sorted(run("export", copy).out.splitlines()) == sorted(lines.out.splitlines())
    again = run("import", copy, "-", given=lines.out.encode())
    assert (again.code, again.out, again.err) == (0, "took in 0 sessions, 0 messages, 1 records\n", "")


def test_an_export_to_a_file_is_whole_and_private(run: Run, url: str, tmp_path: Path) -> None:
    file = tmp_path / "backup.jsonl"
    ran = run("export", url, "--output", file, "--json")
    assert ran.document == {"lines": 8, "file": str(file)}
    assert len(file.read_bytes().splitlines()) == 8
    assert file.stat().st_mode & 0o777 == 0o600
    refused = run("export", url, "--output", file)
    assert (refused.code, "give --yes" in refused.err) == (2, True)
    assert run("export", url, "--output", file, "--yes").code == 0
    assert run("import", f"sqlite:///{tmp_path}/copy.db", file).code == 0


def test_with_json_the_lines_stay_on_standard_output(run: Run, url: str) -> None:
    ran = run("export", url, "--json")
    assert len(ran.out.splitlines()) == 8
    assert json.loads(ran.err) == {"lines": 8}


def test_an_export_that_fails_leaves_no_file(run: Run, url: str, tmp_path: Path) -> None:
    damaged(url)
    file = tmp_path / "backup.jsonl"
    assert run("export", url, "--output", file).code == 2
    assert [path.name for path in tmp_path.iterdir() if "backup" in path.name] == []
    ran = run("export", url, "--output", file, "--skip-damaged")
    assert (ran.code, "what is left was written" in ran.err) == (1, True)
    assert '"answer"' in file.read_text("utf-8")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"", "no export of a store: its first line has 0 bytes"),
        (f"{SECRET}\n".encode(), "no export of a store: its first line has 31 bytes"),
        (b'{"line":"llmbuffer-sealed-export"}\n', "the export is sealed: give its key by --export-key-file"),
    ],
)
def test_what_is_no_export_makes_no_store(run: Run, tmp_path: Path, given: bytes, message: str) -> None:
    ran = run("import", f"sqlite:///{tmp_path}/new.db", given=given)
    assert (ran.code, list(tmp_path.iterdir())) == (2, [])
    assert ran.err.startswith(f"llmbuffer: error: {message}")
    assert run("import", f"sqlite:///{tmp_path}/new.db", tmp_path / "none.jsonl").err.endswith(
        "none.jsonl: No such file or directory\n"
    )


def test_an_export_that_was_changed_names_the_line(run: Run, url: str, tmp_path: Path) -> None:
    lines = run("export", url).out.replace("I see.", "I saw.").encode()
    ran = run("import", f"sqlite:///{tmp_path}/copy.db", given=lines)
    assert ran.code == 2
    assert "line 5 of the export: the digest" in ran.err


# Keys and tenants


def test_a_key_is_read_from_a_file_or_the_environment(
    run: Run, sealed: str, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = run("stats", sealed, "--key-file", key, "--json").document
    assert (document["sealed"], document["tenants"]) == (True, ["acme", "globex"])
    monkeypatch.setenv("LLMBUFFER_STORE_KEY", key.read_text())
    assert run("stats", sealed, "--json").code == 0
    raw = key_file(key.with_name("raw"), bytes.fromhex(key.read_text()))
    assert run("ls", sealed, "--key-file", raw, "--tenant", "acme").code == 0


def test_a_key_that_others_may_read_is_told(run: Run, sealed: str, key: Path) -> None:
    key.chmod(0o644)
    ran = run("stats", sealed, "--key-file", key)
    assert (ran.code, ran.err) == (0, f"llmbuffer: {key} may be read by others: chmod 600 {key}\n")


@pytest.mark.parametrize("command", ["stats", "ls", "verify", "gc", "export"])
def test_a_missing_and_a_wrong_key_are_one_clear_line(
    run: Run, sealed: str, url: str, tmp_path: Path, command: str
) -> None:
    wrong = key_file(tmp_path / "wrong")
    for arguments, message in (
        ((sealed,), "the store is sealed: open it with key=; here a key is given by --key-file FILE"),
        ((sealed, "--key-file", wrong), "the store opens with a key of fingerprint"),
        ((url, "--key-file", wrong), "the store is not sealed, and a key was given"),
        ((sealed, "--key-file", tmp_path / "none"), f"{tmp_path / 'none'}: No such file or directory"),
    ):
        ran = run(command, *arguments)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
        assert ran.err.startswith(f"llmbuffer: error: {message}")
        assert wrong.read_text().strip() not in ran.err


def test_a_tenant_that_was_mistyped_is_not_made(run: Run, sealed: str, key: Path) -> None:
    for command in ("ls", "gc", "export"):
        ran = run(command, sealed, "--key-file", key, "--tenant", "amce")
        assert (ran.code, ran.out) == (2, "")
        assert "no tenant 'amce': it has ['acme', 'globex']" in ran.err
    assert run("stats", sealed, "--key-file", key, "--json").document["tenants"] == ["acme", "globex"]


def test_verify_reads_all_tenants(run: Run, sealed: str, key: Path) -> None:
    assert run("verify", sealed, "--key-file", key).code == 0
    with sqlite3.connect(sealed.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE nodes SET body = substr(body, 2) WHERE id = (SELECT max(id) FROM nodes)")
    connection.close()
    ran = run("verify", sealed, "--key-file", key, "--json")
    assert ran.code == 1
    assert {each["tenant"] for each in ran.document["findings"]} == {"globex"}
    assert run("verify", sealed, "--key-file", key, "--tenant", "acme").code == 0


def test_a_key_is_rotated_and_the_old_one_locked_out(
    run: Run, sealed: str, key: Path, tmp_path: Path
) -> None:
    new = key_file(tmp_path / "new")
    arguments = ("rotate-key", sealed, "--key-file", key, "--new-key-file", new)
    refused = run(*arguments)
    assert (refused.code, "give --yes" in refused.err) == (2, True)
    done = run(*arguments, "--yes", "--json").document
    assert (done["number"], done["left"], done["vacuumed"]) == (2, 0, True)
    assert run("stats", sealed, "--key-file", key).code == 2
    assert run("verify", sealed, "--key-file", new).code == 0
    same = run("rotate-key", sealed, "--key-file", new, "--yes", "--json").document
    assert same["number"] == 3
    with open_store(sealed, key=Keyring({"new": new.read_text().strip()}, "new"), tenant="acme") as acme:
        assert len(acme.messages("ann")) == 2


def test_rotation_without_a_key_says_what_to_give(run: Run, url: str) -> None:
    ran = run("rotate-key", url, "--yes")
    assert (ran.code, "rotate-key needs the key that opens the store now" in ran.err) == (2, True)


def test_a_sealed_store_is_exported_sealed_or_on_request_in_the_clear(
    run: Run, sealed: str, key: Path, tmp_path: Path
) -> None:
    refused = run("export", sealed, "--key-file", key)
    assert (refused.code, refused.out) == (2, "")
    assert "give --export-key-file FILE, or --plain" in refused.err
    lines = run("export", sealed, "--key-file", key, "--export-key-file", key)
    assert SECRET not in lines.out
    assert "not in it: the shares of 2 tenants" in lines.err
    assert SECRET in run("export", sealed, "--key-file", key, "--tenant", "acme", "--plain").out
    other = key_file(tmp_path / "other")
    target = (f"sqlite:///{tmp_path}/moved.db", "--key-file", other, "--tenant", "new")
    given = lines.out.encode()
    assert run("import", *target, "--export-key-file", key, given=given).code == 0
    assert run("ls", *target, "--json").document["sessions"][0]["model"] == "gpt-5.5"
    wrong = run("import", *target, "--export-key-file", other, given=given)
    assert (wrong.code, "give the right key" in wrong.err) == (2, True)


# No store by mistake, no server


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "import"])
def test_a_store_that_is_not_there_is_not_made(run: Run, tmp_path: Path, key: Path, command: str) -> None:
    (tmp_path / "empty.db").touch()
    (tmp_path / "text.db").write_text("no database, but a text\n")
    before = sorted(tmp_path.iterdir())
    rest = {"forget": ("ann", "--yes"), "rotate-key": ("--key-file", key, "--yes")}.get(command, ())
    for name, message in (
        ("none.db", "there is no store at"),
        ("empty.db", "there is no store at"),
        ("none/none.db", "there is no store at"),
        ("text.db", "is no SQLite database"),
    ):
        ran = run(command, f"sqlite:///{tmp_path}/{name}", *rest)
        assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
        assert message in ran.err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nope:x", "'nope:x' is no store: schemes found are"),
        ("sessions.db", "'sessions.db' is no store"),
        ("memory:", "'memory:' ends with this command"),
        ("sqlite:///", "'sqlite:///' names no file"),
        ("sqlite:///x.db?mode=nope", "unknown mode 'nope'"),
    ],
)
def test_a_wrong_url_is_one_clear_line(
    run: Run, url: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.db").write_bytes(b"SQLite format 3\0")
    ran = run("ls", url)
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert message in ran.err


@pytest.mark.parametrize("scheme", ["redis", "postgresql"])
def test_a_server_that_is_down_is_one_clear_line(run: Run, scheme: str) -> None:
    pytest.importorskip({"redis": "redis", "postgresql": "psycopg"}[scheme])
    ran = run("ls", f"{scheme}://ann:wonderland@127.0.0.1:{free_port()}/0")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert "wonderland" not in ran.err


@pytest.mark.parametrize(("scheme", "module"), [("redis", "redis"), ("postgresql", "psycopg")])
def test_a_missing_extra_is_one_clear_line(
    run: Run, scheme: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    ran = run("ls", f"{scheme}://127.0.0.1:{free_port()}/0")
    assert (ran.code, ran.out, len(ran.err.splitlines())) == (2, "", 1)
    assert "pip install 'llmbuffer[" in ran.err


def test_a_redis_server_without_a_store_stays_as_it_is(run: Run, tmp_path: Path) -> None:
    need_redis()
    import redis

    with redis_server(tmp_path) as server:
        ran = run("ls", server.url)
        assert (ran.code, "there is no store at" in ran.err) == (2, True)
        with redis.Redis(port=server.port) as client:
            assert client.dbsize() == 0
        filled(server.url)
        assert run("stats", server.url, "--json").document["sessions"] == 2
        assert run("forget", server.url, "ann", "--yes", "--json").document["sessions"] == ["ann"]


# At a terminal


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)


@pytest.mark.parametrize(("answer", "code", "left"), [(b"n\n", 1, 2), (b"y\n", 0, 1)])
def test_on_a_terminal_it_asks(
    url: str, terminal: tuple[int, int], answer: bytes, code: int, left: int
) -> None:
    ours, theirs = terminal
    process = subprocess.Popen(
        [*PROGRAM, "store", "forget", url, "ann"], stdin=theirs, stdout=subprocess.PIPE, stderr=theirs
    )
    os.close(theirs)
    asked = b""
    while b"[y/N] " not in asked:
        asked += os.read(ours, 1_024)
    os.write(ours, answer)
    assert process.stdout is not None
    process.stdout.read()
    process.stdout.close()
    assert (process.wait(60), b"delete 'ann' for ever?" in asked) == (code, True)
    with open_store(url) as store:
        assert len(store.sessions()) == left


def test_progress_is_drawn_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with storing.watching("reading") as told:
        told(3)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with storing.watching("reading") as told:
        told(3_000)
    assert "reading: 3,000" in capsys.readouterr().err
