"""A store in a Redis or Valkey server."""

from __future__ import annotations

from .backend import RedisBackend, open_redis

__all__ = ["RedisBackend", "open_redis"]
