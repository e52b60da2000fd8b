"""Public names are typed: typical programs run, use all of them, and none of them is ``Any``.

The type checkers check the types of the same programs: see `typed`.
"""

import ast
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator
from types import ModuleType
from typing import get_overloads

import pytest
from public_api import INTERNAL
from typed import calls, errors, monitoring, settings, streams, testing

import pythpeer
import pythpeer.testing
from pythpeer.testing import FakeServices

pytestmark = pytest.mark.anyio

MODULES = (calls, errors, monitoring, settings, streams, testing)
PROGRAMS: dict[str, Callable[..., Awaitable[None]]] = {
    f"{module.__name__}.{name}": program
    for module in MODULES
    for name, program in vars(module).items()
    if inspect.iscoroutinefunction(program) and program.__module__ == module.__name__
}

# -- programs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
async def test_a_program_runs(program: Callable[..., Awaitable[None]], fake: FakeServices) -> None:
    """A program that the type checkers accept works."""
    async with fake.session() as session:
        fixtures = {"fake": fake, "fake_services": fake, "session": session}
        fixtures["pythpeer_session"] = session
        await program(**{name: fixtures[name] for name in inspect.signature(program).parameters})


@pytest.mark.parametrize(
    "namespace", [pythpeer, pythpeer.testing], ids=lambda namespace: namespace.__name__
)
def test_programs_use_every_public_name(namespace: ModuleType) -> None:
    """Every public name, and every public member of each class, is in some program."""
    trees = [ast.parse(inspect.getsource(module)) for module in MODULES]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    used |= {node.arg or "" for node in nodes if isinstance(node, ast.keyword)}
    unused = {path for path, _ in members(namespace) if path.rpartition(".")[2] not in used}
    assert unused <= INTERNAL


# -- annotations ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "namespace", [pythpeer, pythpeer.testing], ids=lambda namespace: namespace.__name__
)
def test_no_public_annotation_is_any(namespace: ModuleType) -> None:
    """Each parameter, result and field is annotated, and none with ``Any``."""
    annotations_by_path = {path: list(annotations(thing)) for path, thing in members(namespace)}
    assert sum(map(len, annotations_by_path.values())) > 100
    assert [path for path, words in annotations_by_path.items() if any(map(is_loose, words))] == []


@pytest.mark.parametrize(
    "loose_annotation", ["Any", "dict[str, Any]", "typing.Any | None", "list", "type"]
)
def test_vague_annotations_are_detected(loose_annotation: str) -> None:
    """``Any``, a collection without item types, and a missing annotation are vague."""
    assert is_loose(loose_annotation)
    assert is_loose(inspect.Parameter.empty)
    assert not is_loose("list[int] | AnyStr")


def members(namespace: ModuleType) -> Iterator[tuple[str, object]]:
    """Yield the public names of *namespace* and the public members of its classes, with values.

    Members that a class overrides from another library are left out.
    """
    for name in namespace.__all__:
        thing = getattr(namespace, name)
        yield name, thing
        classes = thing.__mro__ if inspect.isclass(thing) else ()
        foreign = {member for owner in classes if not is_ours(owner) for member in vars(owner)}
        for owner in filter(is_ours, classes):
            for member, value in {**vars(owner), **inspect.get_annotations(owner)}.items():
                if not member.startswith("_") and member not in foreign:
                    yield f"{name}.{member}", value


def is_ours(owner: type) -> bool:
    """Return whether a class is defined in the package."""
    return owner.__module__.startswith("pythpeer.")


def annotations(thing: object) -> Iterator[object]:
    """Yield the public annotations of *thing*, as written."""
    if isinstance(thing, str):
        yield thing  # the annotation of a field
    elif isinstance(thing, property) and thing.fget is not None:
        yield inspect.signature(thing.fget).return_annotation
    elif inspect.isclass(thing) and is_ours(thing) and "__init__" in vars(thing):
        yield from annotations(thing.__init__)
    elif isinstance(thing, classmethod | staticmethod):
        yield from annotations(thing.__func__)
    elif inspect.isfunction(thing):
        for form in get_overloads(thing) or [thing]:
            signature = inspect.signature(form)
            yield signature.return_annotation
            for name, parameter in signature.parameters.items():
                if name not in ("self", "cls"):
                    yield parameter.annotation


LOOSE = re.compile(r"\b(Any|(list|dict|tuple|set|type|Mapping|Callable)(?!\[))\b")


def is_loose(annotation: object) -> bool:
    """Return whether an annotation is missing, ``Any``, or a collection without item types."""
    return annotation is inspect.Parameter.empty or LOOSE.search(str(annotation)) is not None
