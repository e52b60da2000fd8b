"""Fingerprints: what a store on a disk or a server writes in place of the digest of a key.

In memory, the names of topics and the keys of limiters end in the account: `Secret.fingerprint`, a
fast digest of 16 hexadecimal digits. A short key can be found from such a digest by trying all
keys, so it must not be written anywhere. A store writes a *stored name* instead, in which a slow
hash of the digest with the salt of that store replaces it.

The salt is random, is created with the store, and is kept in it: the same key has a different
fingerprint in each store. Stored names of version 0.1 end in the digest itself; `stored_name`
converts them as well, so that a store can rename what it has without knowing any key.
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import lru_cache
from typing import Final

__all__ = ["SALT_SIZE", "has_digest", "make_salt", "stored_name"]

SALT_SIZE: Final = 16
"""The bytes of a salt."""

SCRYPT_COST = 2**14
"""scrypt's parameter n: with r = 8, a fingerprint takes 16 MiB and about 50 ms."""

FINGERPRINT_SIZE: Final = 16
"""The bytes of a fingerprint, twice as many as those of the digest: the two differ in length."""

_digest_at_end: Final = re.compile(r"(?<= )[0-9a-f]{16}\Z")


def make_salt() -> bytes:
    """Return a random salt for a new store."""
    return os.urandom(SALT_SIZE)


def has_digest(name: str) -> bool:
    """Return whether *name* ends in the digest of a key, and must not be stored as it is."""
    return _digest_at_end.search(name) is not None


def stored_name(name: str, salt: bytes) -> str:
    """Return what a store with this *salt* writes for *name*, of a topic or of a limiter.

    A name without the digest of a key is returned unchanged. The first call for a digest and a salt
    takes about 50 ms, without holding the interpreter's lock: make it in a thread when the store is
    opened. Later calls are fast.
    """
    match = _digest_at_end.search(name)
    return name if match is None else name[: match.start()] + _fingerprint(match[0], salt)


@lru_cache(maxsize=256)
def _fingerprint(digest: str, salt: bytes) -> str:
    size = FINGERPRINT_SIZE
    return hashlib.scrypt(digest.encode(), salt=salt, n=SCRYPT_COST, r=8, p=1, dklen=size).hex()
