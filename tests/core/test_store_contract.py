"""Every back end that llmbuffer offers keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuffer.plugins import plugins
from llmbuffer.store import Backend, open_store
from llmbuffer.store.memory import open_memory
from llmbuffer.store.sqlite import open_sqlite
from llmbuffer.testing import StoreContract
from llmbuffer.testing.stores import DIALECTS


class TestMemory(StoreContract):
    def make(self, folder: Path) -> Backend:
        return open_memory("memory:")

    @pytest.mark.skip(reason="what is in memory is gone with the process")
    def test_everything_is_there_again(self) -> None:  # type: ignore[override]
        ...


class TestSqlite(StoreContract):
    def make(self, folder: Path) -> Backend:
        return open_sqlite(f"sqlite:///{folder}/store.db")

    again = make


def test_every_built_in_back_end_is_under_contract() -> None:
    servers = {
        "postgres",
        "postgresql",
        "redis",
        "rediss",
        "unix",
        "valkey",
        "valkeys",
    }  # in modules of their own
    assert plugins.offers("stores").keys() == {"memory", "sqlite"} | servers
    with open_store("memory:") as store:
        assert store.stats().nodes == 0


def test_every_dialect_is_under_contract() -> None:
    assert {dialect for dialect, _ in DIALECTS} == plugins.offers("dialects").keys()
