"""A store in a PostgreSQL database."""

from __future__ import annotations

from .backend import PostgresBackend, open_postgres

__all__ = ["PostgresBackend", "open_postgres"]
