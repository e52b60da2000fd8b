"""The package has layers: a module or package imports from lower layers, or from its own.

Which module belongs to which layer stands in CONTRIBUTING.md and nowhere else; it is read from
there.
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
HEAD = "| layer | modules | what it is for, and what it may know |"

AIOHTTP_MODULES = frozenset({"transport", "testing"})
"""The modules that may import aiohttp: what sends, and the fake services."""


# -- reading the table, reading the code ----------------------------------------------------------


def read_layers(text: str) -> dict[str, int]:
    """Return the layer of each module, counted from the lowest, from the table under `HEAD`."""
    _, head, rest = text.partition(f"{HEAD}\n")
    assert head, "the table is missing"
    rows: list[list[str]] = []
    for line in rest.splitlines()[1:]:
        if not line.startswith("|"):
            break
        name, names, purpose = (cell.strip() for cell in line.strip("|").split("|"))
        assert name, line
        assert purpose, line
        rows.append(re.findall(r"`(\w+)(?:\.py|/)?`", names))
    layers: dict[str, int] = {}
    for number, row in enumerate(reversed(rows)):
        for module in row:
            assert module not in layers, f"{module} stands twice in the table"
            layers[module] = number
    return layers


def modules(package: Path) -> Iterator[tuple[str, ...]]:
    """Yield every module as its path within the package: ``("stores", "base")``."""
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).with_suffix("").parts


def imported(package: Path, module: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield what a module imports anywhere in its text, under a condition or late as well.

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


def violations(package: Path, layers: Mapping[str, int]) -> list[str]:
    """Return every way in which the code of *package* does not keep to *layers*."""
    violations = []
    edges: dict[str, set[str]] = {}
    for module in modules(package):
        top, name = module[0], "/".join(module)
        if top not in layers:
            violations.append(f"{name}: not in the table")
            continue
        for parts in imported(package, module):
            if parts[0] == "aiohttp" and top not in AIOHTTP_MODULES:
                violations.append(f"{name}: imports aiohttp")
            if parts[0] != package.name:
                continue
            other = parts[1] if len(parts) > 1 else "__init__"
            if other == top:
                continue
            if layers.get(other, 99) > layers[top]:
                violations.append(f"{name}: imports {other}, which is in a higher layer")
            elif layers[other] == layers[top]:
                edges.setdefault(top, set()).add(other)
    return violations + [f"{name}: imports itself by way of {path}" for name, path in cycles(edges)]


def cycles(edges: Mapping[str, set[str]]) -> Iterator[tuple[str, str]]:
    """Yield each module that imports itself by way of others of its layer, with those."""
    for start in edges:
        reached = {start}
        paths: list[tuple[str, ...]] = [(start,)]
        while paths:
            path = paths.pop()
            for other in sorted(edges.get(path[-1], ())):
                if other == start:
                    yield start, ", ".join(path[1:])
                elif other not in reached:
                    reached.add(other)
                    paths.append((*path, other))


# -- the package as it is -------------------------------------------------------------------------

LAYERS = read_layers(GUIDE.read_text(encoding="utf-8"))


def test_every_module_imports_from_lower_layers_or_its_own() -> None:
    """No import leads upwards or in a circle, every module has a layer, aiohttp has its place."""
    assert violations(PACKAGE, LAYERS) == []


def test_every_module_of_the_table_exists() -> None:
    """The table names nothing that does not exist."""
    assert set(LAYERS) - {module[0] for module in modules(PACKAGE)} == set()


@pytest.mark.parametrize("package", sorted({m[0] for m in modules(PACKAGE) if len(m) > 1}))
def test_no_package_has_circles(package: str) -> None:
    """Within a package the modules import one another in one direction."""
    edges: dict[str, set[str]] = {}
    for module in modules(PACKAGE):
        if module[0] != package or module[-1] == "__init__":
            continue
        for parts in imported(PACKAGE, module):
            if parts[:2] == ("pythpeer", package) and len(parts) > 2 and parts[1:] != module:
                edges.setdefault("/".join(module), set()).add("/".join(parts[1:]))
    assert list(cycles(edges)) == []


PURE = ("wire", "pacing/bucket", "streams/gaps", "retry", "splitting", "validation")


def test_pure_modules_know_no_loop_and_no_clock() -> None:
    """They import neither asyncio, anyio, time nor anything that opens sockets."""
    forbidden = {"asyncio", "anyio", "time", "socket", "threading", "aiohttp"}
    checked = 0
    for module in modules(PACKAGE):
        name = "/".join(module)
        if any(name == pure or name.startswith(f"{pure}/") for pure in PURE):
            checked += 1
            assert {parts[0] for parts in imported(PACKAGE, module)} & forbidden == set(), name
    assert checked >= 10


# -- the checker ----------------------------------------------------------------------------------

SAMPLE_PACKAGE = {"base": 0, "left": 1, "right": 1, "top": 2, "testing": 3, "transport": 1}


@pytest.mark.parametrize(
    ("module", "source", "violation"),
    [
        ("left.py", "from .top import x", "left: imports top, which is in a higher layer"),
        ("left.py", "from . import top", "left: imports top, which is in a higher layer"),
        ("left.py", "import sample.top", "left: imports top, which is in a higher layer"),
        ("left.py", "from sample import top", "left: imports top, which is in a higher layer"),
        ("left.py", "from .top.inner import x", "left: imports top, which is in a higher layer"),
        ("left.py", "def f():\n    from .top import x", "left: imports top, which is in a higher"),
        ("left.py", "if 0:\n    from .top import x", "left: imports top, which is in a higher"),
        ("left.py", "from . import x", "left: imports __init__, which is in a higher layer"),
        ("left.py", "from .other import x", "left: imports other, which is in a higher layer"),
        ("top/inner.py", "from ..testing import x", "top/inner: imports testing, which is in a"),
        ("unknown.py", "", "unknown: not in the table"),
        ("top/more/inner.py", "import aiohttp", "top/more/inner: imports aiohttp"),
        ("left.py", "from aiohttp.web import x", "left: imports aiohttp"),
        ("left.py", "def f():\n    import aiohttp", "left: imports aiohttp"),
        ("left.py", "from .base import x", None),
        ("left.py", "from .right import x", None),
        ("left.py", "import asyncio, msgspec", None),
        ("top/inner.py", "from .other import x\nfrom ..left import y\nfrom . import z", None),
        ("transport.py", "import aiohttp\nfrom .base import x", None),
        ("testing/server.py", "from aiohttp import web\nfrom ..top import x", None),
    ],
)
def test_the_checker_finds_a_violation(
    tmp_path: Path, module: str, source: str, violation: str | None
) -> None:
    """A sample package with one module that breaks a rule, or keeps to them."""
    package = sample_package(tmp_path)
    (package / module).parent.mkdir(parents=True, exist_ok=True)
    (package / module).write_text(source, encoding="utf-8")
    reported = violations(package, SAMPLE_PACKAGE)
    assert len(reported) == (0 if violation is None else 1)
    assert violation is None or reported[0].startswith(violation)


def test_the_checker_finds_a_circle_within_a_layer(tmp_path: Path) -> None:
    """Each module of the circle is named, with the way back to it."""
    package = sample_package(tmp_path)
    (package / "left.py").write_text("from .right import x", encoding="utf-8")
    (package / "right.py").write_text("from .left import x", encoding="utf-8")
    assert violations(package, SAMPLE_PACKAGE) == [
        "left: imports itself by way of right",
        "right: imports itself by way of left",
    ]


def sample_package(folder: Path) -> Path:
    """Make a package in which nothing imports anything."""
    package = folder / "sample"
    for name in ("base", "left", "right", "transport", "top/inner", "top/other"):
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return package


def test_the_table_is_read_from_its_end() -> None:
    """The last row is the lowest layer, modules stand in backticks, and the table has an end."""
    table = (
        f"text\n\n{HEAD}\n|---|---|---|\n| b | `a.py`, `b/` | x |\n| a | `c` | y |\n\n| z | `d` |"
    )
    assert read_layers(table) == {"a": 1, "b": 1, "c": 0}
    with pytest.raises(AssertionError, match="twice"):
        read_layers(f"{HEAD}\n|---|---|---|\n| b | `a` | x |\n| a | `a` | y |")
    with pytest.raises(AssertionError, match="missing"):
        read_layers("no table")
