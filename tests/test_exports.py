"""What the package shows: the names that users import, and where they import them from."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

import pythpeer
import pythpeer.doctor
import pythpeer.public
import pythpeer.testing

PUBLIC = [
    ("pythpeer", "Session MemoryStore Retry Rate Secret Endpoint Effect FLAG Limiter"),
    ("pythpeer", "ChatMessage ChatPage ChatStream Gap merge split_text"),
    ("pythpeer", "User StaffMember ChatStats Mail MailStream"),
    ("pythpeer", "PythpeerError InvalidRequestError TransportError RequestTimeoutError"),
    ("pythpeer", "OutcomeUnknownError HttpStatusError RateLimitedError DecodeError"),
    ("pythpeer", "ResponseTooLargeError ApiError AccessDeniedError"),
    ("pythpeer", "GapError SessionClosedError StoreError"),
    ("pythpeer.stores", "MemoryStore RedisStore"),
    ("pythpeer.doctor", "examine write_samples Report Finding Status Shape Sample"),
    ("pythpeer.testing", "FakeServices"),
]
PROMISED = [(module, name) for module, names in PUBLIC for name in names.split()]
FACES = [pythpeer, pythpeer.doctor, pythpeer.testing]
HOME = Path(pythpeer.__file__).parent


@pytest.mark.parametrize(("module", "name"), PROMISED)
def test_what_is_promised_is_there(module: str, name: str) -> None:
    """Every public name is found where users are told to import it from."""
    face = importlib.import_module(module)
    assert name in face.__all__
    assert getattr(face, name) is not None


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_all_is_sorted_and_resolves(face: object) -> None:
    """``__all__`` has each name once, in order: constants, classes, functions; none in vain."""
    names: list[str] = face.__all__  # type: ignore[attr-defined]
    kinds = [(not name.isupper(), name[0].islower(), name) for name in names]
    assert kinds == sorted(set(kinds))
    assert all(hasattr(face, name) for name in names)


def test_all_is_all() -> None:
    """Whatever `pythpeer` imports for its users is in ``__all__``."""
    tree = ast.parse(inspect.getsource(pythpeer.public))
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert imported == set(pythpeer.__all__)


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    """Ctrl-C is minded before anything that takes its time, and then everything is there."""
    source = """
import sys
before = {*sys.modules}  # what measures coverage has loaded something, too
import pythpeer.cli
loaded = {*sys.modules} - before
assert not {"asyncio", "typing", "msgspec", "anyio", "pythpeer.errors"} & loaded
assert {"Session", "merge", "__path__"} <= set(dir(pythpeer))
assert pythpeer.errors.GapError is pythpeer.GapError
assert not hasattr(pythpeer, "Sesion")
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", source], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_star_import_brings_what_is_public() -> None:
    """``from pythpeer import *`` gives the names of ``__all__``."""
    names: dict[str, object] = {}
    exec("from pythpeer import *", names)
    assert names.keys() - {"__builtins__"} == set(pythpeer.__all__)


@pytest.mark.parametrize("path", sorted(HOME.rglob("*.py")), ids=lambda path: path.stem)
def test_every_module_says_what_it_is_for_and_what_it_shows(path: Path) -> None:
    """Each module opens with a docstring, and its ``__all__`` names what stands in it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    shown = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    for names in shown:
        assert set(names) <= set(_top_level_names(tree))
        assert len(names) == len(set(names))


def _top_level_names(tree: ast.Module | ast.If) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.ImportFrom | ast.Import):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            yield from map(ast.unparse, node.targets)
        elif isinstance(node, ast.AnnAssign):
            yield ast.unparse(node.target)
        elif isinstance(node, ast.If):
            yield from _top_level_names(node)


@pytest.mark.parametrize("face", FACES, ids=lambda face: face.__name__)
def test_public_classes_and_functions_have_docstrings(face: object) -> None:
    """Each public class and function says what it is for, and so does each of its members."""
    bare = []
    for name in face.__all__:  # type: ignore[attr-defined]
        thing = getattr(face, name)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        members = {} if inspect.isfunction(thing) else vars(thing)
        public = {
            f"{name}.{member}": value
            for member, value in members.items()
            if not member.startswith("_") and (callable(value) or isinstance(value, property))
        }
        bare += [
            path for path, value in {name: thing, **public}.items() if not inspect.getdoc(value)
        ]
    assert bare == []


def test_errors_derive_from_one() -> None:
    """Everything public that can be raised is a `PythpeerError`."""
    raised = {name for name in pythpeer.__all__ if name.endswith("Error")}
    assert len(raised) == 14
    for name in raised:
        assert issubclass(getattr(pythpeer, name), pythpeer.PythpeerError)


def test_the_package_is_typed() -> None:
    """``py.typed`` tells type checkers that the annotations are meant for them."""
    assert files(pythpeer).joinpath("py.typed").is_file()


def imported_by(statement: str) -> set[str]:
    """The top-level packages that a fresh interpreter has imported after *statement*."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=HOME.parent,
        timeout=60,
        # Whoever measures coverage in child processes imports more than the package does.
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
    )
    return set(done.stdout.split())


def test_importing_the_package_is_light() -> None:
    """``import pythpeer`` imports neither aiohttp nor what only extras, tests and commands need."""
    heavy = {"aiohttp", "yarl", "cyclopts", "rich", "sqlite3", "redis", "pytest", "hypothesis"}
    heavy |= {"opentelemetry"}
    assert imported_by("import pythpeer") & heavy == set()


def test_importing_a_session_class_opens_nothing() -> None:
    """A session can be made without aiohttp; opening it is what needs it."""
    assert "aiohttp" not in imported_by("from pythpeer import Session; Session()")


def test_the_doctor_needs_no_command_line() -> None:
    """A program can have the services examined without the extra that the command takes."""
    assert imported_by("import pythpeer.doctor") & {"aiohttp", "cyclopts", "rich"} == set()
