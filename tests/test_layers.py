"""A module or package of pythpeer imports from lower layers only.

The table in CONTRIBUTING.md assigns each module to a layer, and is read here.
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

AIOHTTP_MODULES = frozenset({"transport", "testing"})
"""The modules that may import aiohttp: the transport, and the fake services."""


# -- reading the table, reading the code ----------------------------------------------------------


def read_layers(text: str) -> dict[str, int]:
    """Return the layer of each module, from the Markdown table under `HEAD`."""
    _, head, rest = text.partition(f"{HEAD}\n")
    assert head, "the table is missing"
    layers: dict[str, int] = {}
    for line in rest.splitlines()[1:]:
        if not line.startswith("|"):
            break
        layer, names, purpose = (cell.strip() for cell in line.strip("|").split("|"))
        assert purpose, line
        for module_name in re.findall(r"`(\w+)(?:\.py|/)?`", names):
            assert module_name not in layers, f"{module_name} is in the table twice"
            layers[module_name] = int(layer)
    return layers


def modules(package: Path) -> Iterator[tuple[str, ...]]:
    """Yield every module as its path within the package: ``("stores", "base")``."""
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).with_suffix("").parts


def imported(package: Path, module: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the imports of a module, including conditional and late ones.

    Each is an absolute dotted path in parts; a name imported from a package is the last part if it
    is a module.
    """
    source = package.joinpath(*module).with_suffix(".py").read_text(encoding="utf-8")
    location = (package.name, *module[:-1])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            up = location[: len(location) - node.level + 1] if node.level else ()
            base = (*up, *(node.module.split(".") if node.module else ()))
            for alias in node.names:
                inner = package.parent.joinpath(*base, alias.name)
                is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
                yield (*base, alias.name) if base[0] == package.name and is_module else base


def find_violations(package: Path, layers: Mapping[str, int]) -> list[str]:
    """Return every violation of the layers in *package*."""
    violations = []
    for module in modules(package):
        module_name, name = module[0], "/".join(module)
        if module_name not in layers:
            violations.append(f"{name}: not in the table")
            continue
        for parts in imported(package, module):
            if parts[0] == "aiohttp" and module_name not in AIOHTTP_MODULES:
                violations.append(f"{name}: imports aiohttp")
            if parts[0] != package.name:
                continue
            other = parts[1] if len(parts) > 1 else "__init__"
            if other != module_name and layers.get(other, 99) >= layers[module_name]:
                violations.append(f"{name}: imports {other}, which is not below")
    return violations


# -- the package ----------------------------------------------------------------------------------

LAYERS = read_layers(GUIDE.read_text(encoding="utf-8"))


def test_every_module_imports_from_lower_layers_only() -> None:
    """No import goes up or stays in its layer, each module has one, few import aiohttp."""
    assert find_violations(PACKAGE, LAYERS) == []


def test_every_module_of_the_table_exists() -> None:
    """The table contains only existing modules."""
    assert set(LAYERS) - {module[0] for module in modules(PACKAGE)} == set()


def test_pure_modules_import_no_event_loop_and_no_clock() -> None:
    """A pure module imports neither asyncio, anyio, time nor a module that opens sockets."""
    impure = {"asyncio", "anyio", "time", "socket", "threading", "aiohttp"}
    text = GUIDE.read_text(encoding="utf-8")
    pure = re.findall(r"^\| \d+ \| `(\w+)` \| pure", text, re.MULTILINE)
    assert {"answers", "bucket", "polling", "retry", "shapes", "wire"} <= set(pure)
    for module_name in pure:
        assert {parts[0] for parts in imported(PACKAGE, (module_name,))} & impure == set(), (
            module_name
        )


# -- tests of the layer checker -------------------------------------------------------------------

SAMPLE_LAYERS = {"base": 0, "left": 1, "right": 1, "top": 2, "testing": 3, "transport": 1}


@pytest.mark.parametrize(
    ("module", "source", "violation"),
    [
        ("left.py", "from .top import x", "left: imports top, which is not below"),
        ("left.py", "from . import top", "left: imports top, which is not below"),
        ("left.py", "import sample.top", "left: imports top, which is not below"),
        ("left.py", "from sample import top", "left: imports top, which is not below"),
        ("left.py", "from .top.inner import x", "left: imports top, which is not below"),
        ("left.py", "def f():\n    from .top import x", "left: imports top, which is not below"),
        ("left.py", "if 0:\n    from .top import x", "left: imports top, which is not below"),
        ("left.py", "from .right import x", "left: imports right, which is not below"),
        ("left.py", "from . import x", "left: imports __init__, which is not below"),
        ("left.py", "from .bottom import x", "left: imports bottom, which is not below"),
        ("top/inner.py", "from ..testing import x", "top/inner: imports testing, which is not bel"),
        ("bottom.py", "", "bottom: not in the table"),
        ("top/bottom/inner.py", "import aiohttp", "top/bottom/inner: imports aiohttp"),
        ("left.py", "from aiohttp.web import x", "left: imports aiohttp"),
        ("left.py", "def f():\n    import aiohttp", "left: imports aiohttp"),
        ("left.py", "from .base import x", None),
        ("left.py", "import asyncio, msgspec", None),
        ("top/inner.py", "from .other import x\nfrom ..left import y\nfrom . import z", None),
        ("transport.py", "import aiohttp\nfrom .base import x", None),
        ("testing/server.py", "from aiohttp import web\nfrom ..top import x", None),
    ],
)
def test_the_checker_finds_each_violation(
    tmp_path: Path, module: str, source: str, violation: str | None
) -> None:
    """A sample package has one module that violates the layers, or keeps them."""
    package = tmp_path / "sample"
    for name in ("base", "left", "right", "transport", "top/inner", "top/other"):
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (package / module).parent.mkdir(parents=True, exist_ok=True)
    (package / module).write_text(source, encoding="utf-8")
    violations = find_violations(package, SAMPLE_LAYERS)
    assert len(violations) == (0 if violation is None else 1)
    assert violation is None or violations[0].startswith(violation)


def test_the_table_is_read_as_it_stands() -> None:
    """Layers are numbers, modules are in backticks, and the table ends at the first other line."""
    table = (
        f"text\n\n{HEAD}\n|---|---|---|\n| 2 | `a.py`, `b/` | x |\n| 0 | `c` | y |\n\n| 9 | `d` |"
    )
    assert read_layers(table) == {"a": 2, "b": 2, "c": 0}
    with pytest.raises(AssertionError, match="twice"):
        read_layers(f"{HEAD}\n|---|---|---|\n| 2 | `a` | x |\n| 0 | `a` | y |")
    with pytest.raises(AssertionError, match="missing"):
        read_layers("no table")
