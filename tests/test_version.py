"""The version of the installed package."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError

import pytest

import pythpeer.version
from pythpeer.version import version


@pytest.fixture(autouse=True)
def clear_cache() -> Iterator[None]:
    """Earlier look-ups do not count in these tests, nor theirs in others."""
    version.cache_clear()
    yield
    version.cache_clear()


def test_the_version_is_the_installed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set in pyproject.toml only."""
    monkeypatch.setattr(pythpeer.version, "_version", {"pythpeer": "1.2.3"}.__getitem__)
    assert version() == "1.2.3"


def test_without_an_installation_the_version_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package also runs from a plain copy."""

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(pythpeer.version, "_version", missing)
    assert version() == "0"


def test_it_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that open one after the other do not read it from the disk each time."""
    answers = iter(["1.2.3"])
    monkeypatch.setattr(pythpeer.version, "_version", lambda _: next(answers))
    assert version() == version() == "1.2.3"
