"""Errors: one tree, scalars only, readable, and unchanged by pickling."""

from __future__ import annotations

import ast
import copy
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pythpeer
from pythpeer import errors
from pythpeer.errors import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    GapError,
    HttpStatusError,
    InvalidRequestError,
    MissingKeyError,
    OutcomeUnknownError,
    PythpeerError,
    RateLimitedError,
    RequestTimeoutError,
    ResponseTooLargeError,
    SessionClosedError,
    StoreError,
    TransportError,
)

NAME = "peerbet.chat.get"

PARENTS: dict[type[PythpeerError], tuple[type[BaseException], ...]] = {
    PythpeerError: (Exception,),
    InvalidRequestError: (PythpeerError, ValueError),
    MissingKeyError: (InvalidRequestError,),
    TransportError: (PythpeerError,),
    RequestTimeoutError: (TransportError, TimeoutError),
    OutcomeUnknownError: (TransportError,),
    HttpStatusError: (PythpeerError,),
    RateLimitedError: (HttpStatusError,),
    DecodeError: (PythpeerError,),
    ResponseTooLargeError: (PythpeerError,),
    ApiError: (PythpeerError,),
    AccessDeniedError: (ApiError,),
    GapError: (PythpeerError,),
    SessionClosedError: (PythpeerError,),
    StoreError: (PythpeerError,),
}

DATA: dict[type[PythpeerError], dict[str, object]] = {
    TransportError: {"sent": False, "untrusted": True},
    RequestTimeoutError: {"sent": False, "untrusted": False},
    OutcomeUnknownError: {"sent": False, "status": 502},
    HttpStatusError: {"status": 404},
    RateLimitedError: {"status": 429, "retry_after": 1.5},
    DecodeError: {"excerpt": "<html>"},
    ResponseTooLargeError: {"limit": 1024},
    ApiError: {"message": "no", "status": 400},
    AccessDeniedError: {"message": "no access", "status": 401},
    GapError: {"after": 3, "before": 9},
    StoreError: {"transient": True},
}

DEFAULTS: dict[type[PythpeerError], dict[str, object]] = {
    TransportError: {"sent": True, "untrusted": False},
    RequestTimeoutError: {"sent": True, "untrusted": False},
    OutcomeUnknownError: {"sent": True, "untrusted": False, "status": None},
    HttpStatusError: {"status": None},
    RateLimitedError: {"status": None, "retry_after": None},
    DecodeError: {"excerpt": ""},
    ResponseTooLargeError: {"limit": None},
    ApiError: {"message": "", "status": None},
    AccessDeniedError: {"message": "", "status": None},
    GapError: {"after": 0, "before": 0},
    StoreError: {"transient": False},
}

each_class = pytest.mark.parametrize("kind", PARENTS, ids=lambda kind: kind.__name__)


def full(kind: type[PythpeerError]) -> PythpeerError:
    """Return an error of this class with every attribute set."""
    return kind("it broke", endpoint=NAME, **DATA.get(kind, {}))


# -- the tree -------------------------------------------------------------------------------------


def test_the_table_of_this_file_is_complete() -> None:
    """Every error class of the module is in the tests' table and in the module's ``__all__``."""
    names = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert names == {kind.__name__ for kind in PARENTS}
    assert names | {"Result"} == set(errors.__all__)


@each_class
def test_each_class_has_its_documented_parents(kind: type[PythpeerError]) -> None:
    """The hierarchy is the contract's, no more and no less."""
    assert kind.__bases__ == PARENTS[kind]


@each_class
def test_each_class_is_public(kind: type[PythpeerError]) -> None:
    """Every error can be imported from the package itself."""
    assert getattr(pythpeer, kind.__name__) is kind
    assert kind.__name__ in pythpeer.__all__


@each_class
def test_one_except_clause_catches_all(kind: type[PythpeerError]) -> None:
    """Every error is a `PythpeerError`."""
    with pytest.raises(PythpeerError, match="it broke"):
        raise full(kind)


def test_errors_are_caught_by_their_python_names() -> None:
    """A bad argument is a ``ValueError``, a timeout is a ``TimeoutError``."""
    with pytest.raises(ValueError, match="it broke"):
        raise full(InvalidRequestError)
    with pytest.raises(TimeoutError, match="it broke"):
        raise full(RequestTimeoutError)


@each_class
def test_each_class_stands_in_the_drawn_tree(kind: type[PythpeerError]) -> None:
    """The module's docstring draws every class, under its parent."""
    drawing = (errors.__doc__ or "").splitlines()
    depth = {
        word: line.index(word)
        for line in drawing
        for word in line.split()[:3]
        if word in errors.__all__
    }
    parent = kind.__bases__[0].__name__
    assert kind.__name__ in depth
    if parent in depth:
        assert depth[kind.__name__] == depth[parent] + 4


# -- attributes -----------------------------------------------------------------------------------


@each_class
def test_data_is_kept_as_attributes(kind: type[PythpeerError]) -> None:
    """Errors carry data, not only text."""
    assert vars(full(kind)) == {"endpoint": NAME, **DEFAULTS.get(kind, {}), **DATA.get(kind, {})}


@each_class
def test_everything_has_a_default(kind: type[PythpeerError]) -> None:
    """An error can be made without arguments."""
    assert vars(kind()) == {"endpoint": None, **DEFAULTS.get(kind, {})}


@each_class
def test_data_is_keyword_only(kind: type[PythpeerError]) -> None:
    """Only the text is positional, because the default pickling needs that."""
    with pytest.raises(TypeError):
        kind("it broke", NAME)  # type: ignore[call-arg]


@each_class
def test_data_is_scalar(kind: type[PythpeerError]) -> None:
    """No error holds a response, a request or another library's object."""
    error = full(kind)
    values = [*error.args, *vars(error).values()]
    assert all(value is None or type(value) in (str, int, float, bool) for value in values)


@each_class
def test_text_begins_with_the_endpoint(kind: type[PythpeerError]) -> None:
    """``str`` shows the failure and the endpoint."""
    assert str(full(kind)) == f"{NAME}: it broke"
    assert str(kind("it broke")) == "it broke"
    assert str(kind()) == ""


def test_text_survives_a_subclass_without_one() -> None:
    """An error without arguments still has a text, an empty one."""
    error = full(DecodeError)
    error.args = ()
    assert str(error) == f"{NAME}: "


# -- pickling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@each_class
def test_each_error_pickles(kind: type[PythpeerError], protocol: int) -> None:
    """An error that was sent to another process is equal."""
    error = full(kind)
    error.add_note("seen in a worker")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is kind
    assert again.args == ("it broke",)
    assert vars(again) == vars(error)
    assert str(again) == str(error)
    assert again.__notes__ == ["seen in a worker"]


@each_class
def test_each_error_copies(kind: type[PythpeerError]) -> None:
    """Copies, shallow and deep, have the same attributes."""
    error = full(kind)
    for again in (copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind
        assert again is not error
        assert (again.args, vars(again)) == (error.args, vars(error))


def test_a_pickled_error_has_no_cause() -> None:
    """The cause is not pickled: it can belong to another library and hold anything."""
    error = full(TransportError)
    error.__cause__ = OSError("https://example.com/?key=canary")
    assert b"canary" not in pickle.dumps(error)


# -- pages ----------------------------------------------------------------------------------------

DOCS = Path(__file__).parent.parent / "docs"
BUILTIN = {Exception, ValueError, TimeoutError}


def tree(cls: type[PythpeerError], indent: str = "") -> Iterator[str]:
    """The lines of the tree below *cls*, as pages show it."""
    below = [child for child, parents in PARENTS.items() if parents[0] is cls]
    for child in below:
        last = child is below[-1]
        line = f"{indent}{'└' if last else '├'}── {child.__name__}"
        also = [parent.__name__ for parent in PARENTS[child] if parent in BUILTIN]
        yield f"{line:<32} also {also[0]}" if also else line
        yield from tree(child, f"{indent}{' ' if last else '│'}   ")


def test_the_pages_show_the_tree() -> None:
    """As it is in the code."""
    shown = (DOCS / "snippets" / "error-tree.txt").read_text(encoding="utf-8")
    assert shown.splitlines() == ["PythpeerError", *tree(PythpeerError)]


def test_the_table_has_every_class_and_its_bases() -> None:
    """And the attributes that the error adds are named in its row."""
    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    for cls, parents in PARENTS.items():
        if cls is not PythpeerError:
            (row,) = re.findall(rf"^\| `{cls.__name__}` \| .*$", page, re.MULTILINE)
            shown = row.split("|")[2]
            expected = {parent.__name__ for parent in parents if parent is not PythpeerError}
            assert set(re.findall(r"`(\w+)`", shown)) == expected


def test_the_examples_order_their_clauses() -> None:
    """A class is in an ``except`` clause before the classes from which it derives."""
    trees = [ast.parse(path.read_text("utf-8")) for path in (DOCS / "examples").glob("*.py")]
    tries = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Try)]
    for node in tries:
        words = [re.findall(r"\w+", ast.unparse(h.type)) for h in node.handlers if h.type]
        clauses = [[getattr(errors, word, None) for word in names] for names in words]
        classes = [cls for clause in clauses for cls in clause if cls is not None]
        for index, cls in enumerate(classes):
            assert not any(issubclass(later, cls) for later in classes[index + 1 :])
    assert len(tries) > 10
