"""The public names of the package, and the modules to import them from."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import pickle
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
    ("pythpeer", "GapError MissingKeyError SessionClosedError StoreError"),
    ("pythpeer.stores", "MemoryStore RedisStore"),
    ("pythpeer.doctor", "examine write_samples Report Finding Status Shape Sample"),
    ("pythpeer.testing", "FakeServices"),
]
PUBLIC_NAMES = [(module, name) for module, names in PUBLIC for name in names.split()]
PUBLIC_MODULES = [pythpeer, pythpeer.doctor, pythpeer.testing]
PACKAGE = Path(pythpeer.__file__).parent


@pytest.mark.parametrize(("module", "name"), PUBLIC_NAMES)
def test_every_promised_name_exists(module: str, name: str) -> None:
    """Every public name can be imported from its documented module."""
    loaded = importlib.import_module(module)
    assert name in loaded.__all__
    assert getattr(loaded, name) is not None


@pytest.mark.parametrize("module", PUBLIC_MODULES, ids=lambda module: module.__name__)
def test_all_is_sorted_and_resolves(module: object) -> None:
    """``__all__`` has each name once, in order: constants, classes, functions; all exist."""
    names: list[str] = module.__all__  # type: ignore[attr-defined]
    kinds = [(not name.isupper(), name[0].islower(), name) for name in names]
    assert kinds == sorted(set(kinds))
    assert all(hasattr(module, name) for name in names)


def test_type_checkers_and_the_interpreter_find_the_same_names() -> None:
    """`pythpeer.public` imports each name from the module that has it at run time."""
    tree = ast.parse(inspect.getsource(pythpeer.public))
    imported = {
        alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert imported.keys() == set(pythpeer.__all__) == set(pythpeer.public.__all__)
    for name, module in imported.items():
        home = importlib.import_module(f"pythpeer.{module}")
        assert getattr(pythpeer, name) is getattr(home, name) is getattr(pythpeer.public, name)


LIGHT = """
import sys
before = {*sys.modules}  # coverage may have loaded modules, too

def loaded():
    return {name.partition(".")[0] for name in {*sys.modules} - before} | {*sys.modules} - before

import pythpeer.cli
assert {"Session", "merge", "__version__", "errors", "__path__"} <= set(dir(pythpeer))
assert not hasattr(pythpeer, "Sesion")
assert not {"asyncio", "typing", "msgspec", "anyio", "pythpeer.errors"} & loaded(), loaded()

for arguments in (["--version"], ["--help"], ["-h"], []):
    assert pythpeer.cli.main(arguments) == 0
slow = {"aiohttp", "rich", "cyclopts", "msgspec", "anyio", "asyncio", "logging"}
slow |= {"importlib.metadata", "typing"}
assert not slow & loaded(), slow & loaded()

assert pythpeer.errors.GapError is pythpeer.GapError
assert not {"msgspec", "pythpeer.session"} & loaded(), loaded()
pythpeer.ChatMessage, pythpeer.merge
assert not {"aiohttp", "rich", "sqlite3"} & loaded(), loaded()

assert pythpeer.cli.main(["user", "--help"]) == 0
unused = {"pythpeer.cli.chat", "pythpeer.doctor", "pythpeer.testing", "aiohttp"}
assert not unused & loaded(), unused & loaded()
"""


def test_names_and_commands_are_loaded_on_first_use() -> None:
    """Help and version import nothing slow, a command only its own module, a name only its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LIGHT],
        capture_output=True,
        text=True,
        check=False,
        cwd=PACKAGE.parent,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"pythpeer {pythpeer.__version__}\nUsage: pythpeer COMMAND\n")


@pytest.mark.parametrize("name", ["ChatMessage", "Rate", "merge"])
def test_public_names_can_be_pickled_by_reference(name: str) -> None:
    """A class or function that is loaded on first use is the same one after unpickling."""
    value = getattr(pythpeer, name)
    assert pickle.loads(pickle.dumps(value)) is value


def test_a_star_import_brings_the_public_names() -> None:
    """``from pythpeer import *`` gives the names of ``__all__``."""
    names: dict[str, object] = {}
    exec("from pythpeer import *", names)
    assert names.keys() - {"__builtins__"} == set(pythpeer.__all__)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_every_module_has_a_docstring_and_a_valid_all(path: Path) -> None:
    """Each module begins with a docstring, and its ``__all__`` lists names that it defines."""
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


@pytest.mark.parametrize("module", PUBLIC_MODULES, ids=lambda module: module.__name__)
def test_public_classes_and_functions_have_docstrings(module: object) -> None:
    """Each public class and function has a docstring, and so does each of its members."""
    bare = []
    for name in module.__all__:  # type: ignore[attr-defined]
        thing = getattr(module, name)
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
    """Every public error is a `PythpeerError`."""
    raised = {name for name in pythpeer.__all__ if name.endswith("Error")}
    assert len(raised) == 15
    for name in raised:
        assert issubclass(getattr(pythpeer, name), pythpeer.PythpeerError)


def test_the_package_is_typed() -> None:
    """``py.typed`` declares that type checkers can use the annotations."""
    assert files(pythpeer).joinpath("py.typed").is_file()


def imported_by(statement: str) -> set[str]:
    """Return the top-level packages that a new interpreter has imported after *statement*."""
    program = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=PACKAGE.parent,
        timeout=60,
        # A measurement of coverage in child processes imports more than the package does.
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
    )
    return set(done.stdout.split())


def test_importing_the_package_is_light() -> None:
    """``import pythpeer`` imports neither aiohttp nor packages of extras, tests and commands."""
    heavy = {"aiohttp", "yarl", "cyclopts", "rich", "sqlite3", "redis", "pytest", "hypothesis"}
    heavy |= {"opentelemetry"}
    assert imported_by("import pythpeer") & heavy == set()


def test_importing_a_session_class_opens_nothing() -> None:
    """A session can be created without aiohttp; opening it needs it."""
    assert "aiohttp" not in imported_by("from pythpeer import Session; Session()")


def test_the_doctor_needs_no_command_line() -> None:
    """A program can use the doctor without the extra that the command needs."""
    assert imported_by("import pythpeer.doctor") & {"aiohttp", "cyclopts", "rich"} == set()
