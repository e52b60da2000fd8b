"""A program without an extra gets an error with a command that installs what it needs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from pythpeer import StoreError
from pythpeer.extras import EXTRAS, install_advice
from pythpeer.stores import RedisStore

PROJECT: Final = Path(__file__).parent.parent / "pyproject.toml"


def test_the_packages_are_those_of_the_project() -> None:
    """An extra that is added or changed in pyproject.toml changes the advice."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    assert {extra: [*packages] for extra, packages in EXTRAS.items()} == project[
        "optional-dependencies"
    ]


@pytest.mark.anyio
async def test_a_redis_store_without_redis_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command works whether pythpeer itself is on an index or not."""
    monkeypatch.setattr("pythpeer.stores.redis.connection.find_spec", lambda _: None)
    with pytest.raises(StoreError) as caught:
        await RedisStore("redis://127.0.0.1:1/0").open()
    assert 'run: python -m pip install "redis>=5.2"' in str(caught.value)


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_can_be_run(extra: str) -> None:
    """A shell passes each requirement to pip as it is, and pip accepts it."""
    command = install_advice(extra).removeprefix("run: ").partition(" (")[0]
    printer = "import sys; print(*sys.argv[1:], sep='\\n')"
    shown = command.replace("python -m pip install", f'"{sys.executable}" -c "{printer}"')
    done = subprocess.run(shown, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(EXTRAS[extra])
