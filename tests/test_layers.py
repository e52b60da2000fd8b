"""The package is a house: a room (a module, or a package in it) imports from floors below only.

Which room is on which floor stands in CONTRIBUTING.md and nowhere else; this reads it there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import pythpeer

PACKAGE = Path(pythpeer.__file__).parent
GUIDE = Path(__file__).parent.parent / "CONTRIBUTING.md"
HEAD = "| floor | room | what lives there |"

AIOHTTP_ROOMS = frozenset({"transport", "testing"})
"""The rooms that may import aiohttp: what sends, and the fake that is sent to."""


# -- reading the table, reading the code ----------------------------------------------------------


def read_floors(text: str) -> dict[str, int]:
    """The floor of each room, from the Markdown table under `HEAD`."""
    _, head, rest = text.partition(f"{HEAD}\n")
    assert head, "the table is missing"
    floors: dict[str, int] = {}
    for line in rest.splitlines()[1:]:
        if not line.startswith("|"):
            break
        floor, rooms, purpose = (cell.strip() for cell in line.strip("|").split("|"))
        assert purpose, line
        for room in re.findall(r"`(\w+)(?:\.py|/)?`", rooms):
            assert room not in floors, f"{room} stands twice in the table"
            floors[room] = int(floor)
    return floors


def modules(package: Path) -> Iterator[tuple[str, ...]]:
    """Every module, as its path within the package: ``("stores", "base")``."""
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).with_suffix("").parts


def imported(package: Path, module: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """What a module imports anywhere in its text, under a condition or late as well.

    Each as an absolute dotted path in parts; what is imported from a package is a part too where
    it is a module.
    """
    source = package.joinpath(*module).with_suffix(".py").read_text(encoding="utf-8")
    home = (package.name, *module[:-1])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = home[: len(home) - node.level + 1] if node.level else ()
            base = (*up, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                inner = package.parent.joinpath(*base, alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                yield (*base, alias.name) if base[0] == package.name and is_module else base


def faults(package: Path, floors: Mapping[str, int]) -> list[str]:
    """Every way in which the code of *package* does not keep to *floors*."""
    found = []
    for module in modules(package):
        room, name = module[0], "/".join(module)
        if room not in floors:
            found.append(f"{name}: not in the table")
            continue
        for parts in imported(package, module):
            if parts[0] == "aiohttp" and room not in AIOHTTP_ROOMS:
                found.append(f"{name}: imports aiohttp")
            if parts[0] != package.name:
                continue
            other = parts[1] if len(parts) > 1 else "__init__"
            if other != room and floors.get(other, 99) >= floors[room]:
                found.append(f"{name}: imports {other}, which is not below")
    return found


# -- the house as it is ---------------------------------------------------------------------------

FLOORS = read_floors(GUIDE.read_text(encoding="utf-8"))


def test_every_room_imports_from_floors_below_only() -> None:
    """No import goes up or stays on its floor, every module has a floor, aiohttp has its place."""
    assert faults(PACKAGE, FLOORS) == []


def test_every_room_of_the_table_exists() -> None:
    """The table speaks of nothing that is not there."""
    assert set(FLOORS) - {module[0] for module in modules(PACKAGE)} == set()


def test_the_pure_rooms_know_no_loop_and_no_clock() -> None:
    """What is called pure imports neither asyncio, anyio, time nor anything that opens sockets."""
    impure = {"asyncio", "anyio", "time", "socket", "threading", "aiohttp"}
    text = GUIDE.read_text(encoding="utf-8")
    pure = re.findall(r"^\| \d+ \| `(\w+)` \| pure", text, re.MULTILINE)
    assert {"answers", "bucket", "polling", "retry", "shapes", "wire"} <= set(pure)
    for room in pure:
        assert {parts[0] for parts in imported(PACKAGE, (room,))} & impure == set(), room


# -- the judge is judged --------------------------------------------------------------------------

HOUSE = {"ground": 0, "left": 1, "right": 1, "roof": 2, "testing": 3, "transport": 1}


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("left.py", "from .roof import x", "left: imports roof, which is not below"),
        ("left.py", "from . import roof", "left: imports roof, which is not below"),
        ("left.py", "import house.roof", "left: imports roof, which is not below"),
        ("left.py", "from house import roof", "left: imports roof, which is not below"),
        ("left.py", "from .roof.room import x", "left: imports roof, which is not below"),
        ("left.py", "def f():\n    from .roof import x", "left: imports roof, which is not below"),
        ("left.py", "if 0:\n    from .roof import x", "left: imports roof, which is not below"),
        ("left.py", "from .right import x", "left: imports right, which is not below"),
        ("left.py", "from . import x", "left: imports __init__, which is not below"),
        ("left.py", "from .cellar import x", "left: imports cellar, which is not below"),
        ("roof/room.py", "from ..testing import x", "roof/room: imports testing, which is not bel"),
        ("cellar.py", "", "cellar: not in the table"),
        ("roof/cellar/room.py", "import aiohttp", "roof/cellar/room: imports aiohttp"),
        ("left.py", "from aiohttp.web import x", "left: imports aiohttp"),
        ("left.py", "def f():\n    import aiohttp", "left: imports aiohttp"),
        ("left.py", "from .ground import x", None),
        ("left.py", "import asyncio, msgspec", None),
        ("roof/room.py", "from .other import x\nfrom ..left import y\nfrom . import z", None),
        ("transport.py", "import aiohttp\nfrom .ground import x", None),
        ("testing/server.py", "from aiohttp import web\nfrom ..roof import x", None),
    ],
)
def test_the_judge_sees_what_is_wrong(
    tmp_path: Path, module: str, source: str, fault: str | None
) -> None:
    """A made-up house with one module that breaks the law, or keeps it."""
    package = tmp_path / "house"
    for name in ("ground", "left", "right", "transport", "roof/room", "roof/other"):
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (package / module).parent.mkdir(parents=True, exist_ok=True)
    (package / module).write_text(source, encoding="utf-8")
    found = faults(package, HOUSE)
    assert len(found) == (0 if fault is None else 1)
    assert fault is None or found[0].startswith(fault)


def test_the_table_is_read_as_it_stands() -> None:
    """Floors are numbers, rooms stand in backticks, and the table ends where it ends."""
    table = (
        f"text\n\n{HEAD}\n|---|---|---|\n| 2 | `a.py`, `b/` | x |\n| 0 | `c` | y |\n\n| 9 | `d` |"
    )
    assert read_floors(table) == {"a": 2, "b": 2, "c": 0}
    with pytest.raises(AssertionError, match="twice"):
        read_floors(f"{HEAD}\n|---|---|---|\n| 2 | `a` | x |\n| 0 | `a` | y |")
    with pytest.raises(AssertionError, match="missing"):
        read_floors("no table")
