"""`RedisStore`: a store for programs on several machines, on one Redis or Valkey server."""

from __future__ import annotations

from .store import RedisStore

__all__ = ["RedisStore"]
