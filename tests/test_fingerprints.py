"""What a store writes in place of the digest of a key."""

from __future__ import annotations

import hashlib
import os
import runpy

import pytest

from pythpeer import Secret
from pythpeer.stores import fingerprints
from pythpeer.stores.fingerprints import has_digest, make_salt, stored_name

DIGEST = Secret("a key").fingerprint()
NAME = f"peerbet.chat https://www.peerbet.org {DIGEST}"


def test_a_stored_name_hides_the_digest() -> None:
    """Only the digest at the end is replaced, by a fingerprint that is no digest."""
    stored = stored_name(NAME, make_salt())
    prefix, _, fingerprint = stored.rpartition(" ")
    assert f"{prefix} {DIGEST}" == NAME
    assert len(fingerprint) == 32
    assert DIGEST not in stored
    assert has_digest(NAME)
    assert not has_digest(stored)


def test_a_stored_name_depends_on_key_and_salt() -> None:
    """Of one store it is always the same; in another store it is another."""
    one, other = make_salt(), make_salt()
    another_name = NAME.replace(DIGEST, Secret("another").fingerprint())
    assert stored_name(NAME, one) == stored_name(NAME, one)
    assert (
        len({stored_name(NAME, one), stored_name(NAME, other), stored_name(another_name, one)}) == 3
    )


def test_what_is_stored_can_be_converted_again() -> None:
    """A stored name is not changed by another conversion."""
    salt = make_salt()
    assert stored_name(stored_name(NAME, salt), salt) == stored_name(NAME, salt)


@pytest.mark.parametrize(
    "name", ["chat", "peerbet.chat https://x nobody", "endpoint https://x ", "0123456789abcdef", ""]
)
def test_a_name_without_a_digest_is_stored_as_it_is(name: str) -> None:
    """There is no account, or it is no key."""
    assert not has_digest(name)
    assert stored_name(name, b"") == name


def test_a_fingerprint_is_slow() -> None:
    """Each try needs 16 MiB and some 50 ms, so that trying a million keys takes many hours."""
    module = runpy.run_path(fingerprints.__file__)  # as it is without the tests
    assert module["SCRYPT_COST"] >= 2**14


def test_a_fingerprint_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For each key and store."""
    salt = os.urandom(16)
    first = stored_name(NAME, salt)
    monkeypatch.setattr(hashlib, "scrypt", None)
    assert stored_name(NAME, salt) == first
