"""Which version this is."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError

import pytest

import pythpeer.version
from pythpeer.version import version


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What has been looked up does not count here, and what is looked up here not elsewhere."""
    version.cache_clear()
    yield
    version.cache_clear()


def test_the_version_is_the_installed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands in pyproject.toml and nowhere else."""
    monkeypatch.setattr(pythpeer.version, "_version", {"pythpeer": "1.2.3"}.__getitem__)
    assert version() == "1.2.3"


def test_without_an_installation_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package also runs from a plain copy."""

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(pythpeer.version, "_version", missing)
    assert version() == "0"


def test_it_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions that open one after the other do not go to the disk for it each time."""
    answers = iter(["1.2.3"])
    monkeypatch.setattr(pythpeer.version, "_version", lambda _: next(answers))
    assert version() == version() == "1.2.3"
