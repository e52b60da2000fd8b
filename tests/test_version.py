"""Which version this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

import pythpeer.version
from pythpeer.version import version


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
