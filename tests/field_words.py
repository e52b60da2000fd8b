"""Write ``field_words.txt``: the words that identifiers of well-known libraries use.

Run by hand, when the choice of libraries changes, with a Python in which they are installed::

    python -m venv field && field/bin/pip install aiohttp aiokafka aiolimiter aio-pika \
        aiosqlite anyio asyncpg attrs botocore celery click coverage cyclopts discord.py dramatiq \
        fakeredis gidgethub h11 hikari httpcore httpx hypothesis kombu msgspec nats-py \
        opentelemetry-sdk pluggy pydantic pytest redis requests rich sqlalchemy stamina starlette \
        structlog tenacity trio typer urllib3 uvicorn websockets yarl
    field/bin/python tests/field_words.py

A word is kept when identifiers of at least two of the libraries use it, or of more, where that is
needed to keep the list short. Names that a library only uses are not counted, nor are its tests and
the libraries that it carries along. The list holds words, one a line and sorted, and nothing else.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from words import FIELD_WORDS, SHORTEST, defined_names, module_name, split_name

LIBRARIES: Final = {
    "aio-pika": ("aio_pika",),
    "aiohttp": ("aiohttp",),
    "aiokafka": ("aiokafka",),
    "aiolimiter": ("aiolimiter",),
    "aiosqlite": ("aiosqlite",),
    "anyio": ("anyio",),
    "asyncpg": ("asyncpg",),
    "attrs": ("attr", "attrs"),
    "botocore": ("botocore",),
    "celery": ("celery",),
    "click": ("click",),
    "coverage": ("coverage",),
    "cyclopts": ("cyclopts",),
    "discord.py": ("discord",),
    "dramatiq": ("dramatiq",),
    "fakeredis": ("fakeredis",),
    "gidgethub": ("gidgethub",),
    "h11": ("h11",),
    "hikari": ("hikari",),
    "httpcore": ("httpcore",),
    "httpx": ("httpx",),
    "hypothesis": ("hypothesis",),
    "kombu": ("kombu",),
    "msgspec": ("msgspec",),
    "nats-py": ("nats",),
    "opentelemetry": ("opentelemetry",),
    "pluggy": ("pluggy",),
    "pydantic": ("pydantic",),
    "pytest": ("_pytest", "pytest"),
    "redis": ("redis",),
    "requests": ("requests",),
    "rich": ("rich",),
    "sqlalchemy": ("sqlalchemy",),
    "stamina": ("stamina",),
    "starlette": ("starlette",),
    "structlog": ("structlog",),
    "tenacity": ("tenacity",),
    "trio": ("trio",),
    "typer": ("typer",),
    "urllib3": ("urllib3",),
    "uvicorn": ("uvicorn",),
    "websockets": ("websockets",),
    "yarl": ("yarl",),
}
"""The packages of each library."""

LEFT_OUT: Final = frozenset(
    {"tests", "_tests", "testsuite", "vendored", "vendor", "_vendor", "data"}
)
"""Directories that are not the library's own code."""

MAX_WORDS: Final = 6000
"""Words that the list has at most."""


def modules_of(package: str) -> Iterator[Path]:
    """Yield the modules of an installed package; raise where it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        message = f"{package} is not installed"
        raise ModuleNotFoundError(message)
    for folder in map(Path, spec.submodule_search_locations):
        for path in folder.rglob("*.py"):
            if LEFT_OUT.isdisjoint(path.relative_to(folder).parts):
                yield path


def words_of(library: str) -> set[str]:
    """Return the words of a library's identifiers."""
    words: set[str] = set()
    for package in LIBRARIES[library]:
        for path in modules_of(package):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for name in (module_name(path.as_posix()), *defined_names(tree)):
                words.update(word for word in split_name(name.text) if len(word) >= SHORTEST)
    return words


def choose(counted: Counter[str], most: int) -> list[str]:
    """Return the words of at least two libraries, or of as many as make the list short enough."""
    least = 2
    while sum(count >= least for count in counted.values()) > most:
        least += 1
    return sorted(word for word, count in counted.items() if count >= least)


def main() -> None:
    """Write the list."""
    counted: Counter[str] = Counter()
    for library in LIBRARIES:
        words = words_of(library)
        sys.stdout.write(f"{library}: {len(words)} words\n")
        counted.update(words)
    chosen = choose(counted, MAX_WORDS)
    FIELD_WORDS.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(chosen)} of {len(counted)} words\n")


if __name__ == "__main__":
    main()
