"""What users see is typed: their programs run, touch all there is, and never meet an ``Any``.

Whether the types are right is the type checkers' to say, about the same programs: see `typed`.
"""

import ast
import inspect
import re
from collections.abc import Awaitable, Callable, Iterator
from types import ModuleType
from typing import get_overloads

import pytest
from typed import calls, errors, observing, settings, streams, testkit

import pythpeer
import pythpeer.testing
from pythpeer.testing import FakeServices

pytestmark = pytest.mark.anyio

MODULES = (calls, errors, observing, settings, streams, testkit)
PROGRAMS: dict[str, Callable[..., Awaitable[None]]] = {
    f"{module.__name__}.{name}": program
    for module in MODULES
    for name, program in vars(module).items()
    if inspect.iscoroutinefunction(program) and program.__module__ == module.__name__
}

INNER = {
    *("Endpoint.convert", "Endpoint.decode", "Endpoint.segments"),
    *("Endpoint.decode_rejects_errors", "Endpoint.status_means_success"),
    *("Limiter.acquire", "Limiter.fail_waiters", "MemoryStore.log", "SqliteStore.log"),
    *("Limiter.permit_answered", "Limiter.permit_released", "Limiter.permit_written"),
    *("Limiter.in_hand", "Limiter.dismiss"),  # old names
    *("MemoryStore.make_limiter", "SqliteStore.make_limiter"),
    *("ApiKeys.check", "ApiKeys.reset", "Faults.next_for"),
    *("Secret.encoded", "Secret.fingerprint", "Secret.try_wrap", "Secret.wrap"),
}
"""Members with public names that only the library itself uses, and no program of a user."""


# -- programs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
async def test_a_program_runs(program: Callable[..., Awaitable[None]], fake: FakeServices) -> None:
    """What the type checkers accept works."""
    async with fake.session() as session:
        given = {"fake": fake, "fake_services": fake, "session": session}
        given["pythpeer_session"] = session
        await program(**{name: given[name] for name in inspect.signature(program).parameters})


@pytest.mark.parametrize("face", [pythpeer, pythpeer.testing], ids=lambda face: face.__name__)
def test_programs_touch_all_there_is(face: ModuleType) -> None:
    """Every public name, and every public member of each class, is in some program."""
    trees = [ast.parse(inspect.getsource(module)) for module in MODULES]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    touched = {node.id for node in nodes if isinstance(node, ast.Name)}
    touched |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    touched |= {node.arg or "" for node in nodes if isinstance(node, ast.keyword)}
    left = {path for path, _ in members(face) if path.rpartition(".")[2] not in touched}
    assert left <= INNER


# -- annotations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("face", [pythpeer, pythpeer.testing], ids=lambda face: face.__name__)
def test_nothing_that_users_see_is_any(face: ModuleType) -> None:
    """Each parameter, result and field is annotated, and none with ``Any``."""
    seen = {path: list(annotations(thing)) for path, thing in members(face)}
    assert sum(map(len, seen.values())) > 100
    assert [path for path, words in seen.items() if any(map(is_vague, words))] == []


@pytest.mark.parametrize("vague", ["Any", "dict[str, Any]", "typing.Any | None", "list", "type"])
def test_the_judge_knows_what_is_vague(vague: str) -> None:
    """Neither ``Any`` nor a collection of whatever there is gets through."""
    assert is_vague(vague)
    assert is_vague(inspect.Parameter.empty)
    assert not is_vague("list[int] | AnyStr")


def members(face: ModuleType) -> Iterator[tuple[str, object]]:
    """The public names of *face*, and the public members of its classes, with what they are.

    Members that are another library's, in a form of ours, are left out.
    """
    for name in face.__all__:
        thing = getattr(face, name)
        yield name, thing
        kinds = thing.__mro__ if inspect.isclass(thing) else ()
        foreign = {member for kind in kinds if not is_ours(kind) for member in vars(kind)}
        for kind in filter(is_ours, kinds):
            for member, value in {**vars(kind), **inspect.get_annotations(kind)}.items():
                if not member.startswith("_") and member not in foreign:
                    yield f"{name}.{member}", value


def is_ours(kind: type) -> bool:
    """Whether a class is the package's own."""
    return kind.__module__.startswith("pythpeer.")


def annotations(thing: object) -> Iterator[object]:
    """The annotations of what users see of *thing*, as they are written."""
    if isinstance(thing, str):
        yield thing  # of a field
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


VAGUE = re.compile(r"\b(Any|(list|dict|tuple|set|type|Mapping|Callable)(?!\[))\b")


def is_vague(annotation: object) -> bool:
    """Whether that says nothing of what there is."""
    return annotation is inspect.Parameter.empty or VAGUE.search(str(annotation)) is not None
