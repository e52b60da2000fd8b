"""Errors for a missing ``async`` or ``await``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from traceback import TracebackException

import pytest

import pythpeer
from pythpeer import (
    ChatMessage,
    ChatStream,
    Endpoint,
    InvalidRequestError,
    MailStream,
    MemoryStore,
    MergedStream,
    Secret,
    Session,
    SqliteStore,
    merge,
)
from pythpeer.pacing.limiter import Limiter
from pythpeer.stores import RedisStore
from pythpeer.testing import Actor, FakeServices, Faults
from pythpeer.transport.response import RawResponse
from pythpeer.wire.request import Request

pytestmark = pytest.mark.anyio

STREAMS: dict[str, Callable[[Session], object]] = {
    "ChatStream": lambda session: session.peerbet.chat_stream(),
    "MailStream": lambda session: session.pythbots.mail_stream(),
    "MergedStream": lambda session: merge(session.peerbet.chat_stream()),
}
OPENED: dict[str, Callable[[Session], object]] = {
    **STREAMS,
    "Session": lambda session: session,
    "FakeServices": lambda session: FakeServices(),
}


HALF_MADE: tuple[type, ...] = (
    *(Session, ChatStream, MailStream, MergedStream, MemoryStore, SqliteStore, RedisStore),
    *(FakeServices, Faults, Actor, Request, Limiter, Secret),
)


@pytest.mark.parametrize("kind", HALF_MADE)
def test_an_object_whose_constructor_raised_has_a_repr(kind: type) -> None:
    """It is a variable of the frames in the traceback, which debuggers show."""
    assert kind.__name__ in repr(object.__new__(kind))


@pytest.mark.parametrize(
    "construct",
    [
        lambda: Session(timeout=-1.0),
        lambda: Session(peerbet_key="\n"),
        lambda: RedisStore("nonsense"),
        lambda: FakeServices(nonsense=True),  # type: ignore[call-arg]
        lambda: Request(Endpoint("mine", "https://example.com"), {"": 1}),
        lambda: Request(Endpoint("mine", "https://example.com"), {"a": "\ud800"}),
    ],
)
def test_the_traceback_of_a_constructor_can_show_variables(construct: Callable[[], object]) -> None:
    """As log handlers and debuggers do."""
    with pytest.raises(InvalidRequestError) as caught:
        construct()
    shown = TracebackException.from_exception(caught.value, capture_locals=True)
    assert "self = " in "".join(shown.format())


def classes_with_a_repr() -> Iterator[type]:
    """Yield each class of the package that has a ``__repr__`` of its own."""
    for module in walk_packages(pythpeer.__path__, "pythpeer."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(import_module(module.name)).values():
            if isinstance(value, type) and value.__module__ == module.name:
                code = getattr(vars(value).get("__repr__"), "__code__", None)
                if code is not None and "pythpeer" in Path(code.co_filename).parts:
                    yield value


def test_every_object_has_a_repr_before_it_is_initialized() -> None:
    """An interrupt of a constructor leaves such an object in the traceback."""
    classes = set(classes_with_a_repr()) - {ChatMessage}  # a Struct is created with its fields
    assert {Session, Secret, Request, Limiter, RawResponse} <= classes
    for one in classes:
        assert one.__name__ in repr(object.__new__(one))


@pytest.mark.parametrize("name", STREAMS)
async def test_a_plain_for_raises_with_the_correction(name: str, fake: FakeServices) -> None:
    """A stream's `TypeError` names it and ``async for``, also where it is unpacked."""
    async with fake.session() as session:
        stream = STREAMS[name](session)
        message = f"^{name} is asynchronous: write 'async for', not 'for'"
        with pytest.raises(TypeError, match=message):
            list(stream)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match=message):
            await asyncio.gather(*stream)  # type: ignore[misc]


@pytest.mark.parametrize("name", OPENED)
async def test_a_plain_with_raises_with_the_correction(name: str, fake: FakeServices) -> None:
    """A plain ``with`` raises a `TypeError` that names ``async with``, and opens nothing."""
    async with fake.session() as session:
        thing = OPENED[name](session)
        message = f"^{name} is asynchronous: write 'async with', not 'with'"
        with pytest.raises(TypeError, match=message), thing:  # type: ignore[attr-defined]
            raise AssertionError
        with pytest.raises(TypeError, match=message), ExitStack() as stack:
            stack.enter_context(thing)  # type: ignore[arg-type]


async def test_python_names_the_call_that_was_not_awaited(fake: FakeServices) -> None:
    """Calls are plain coroutines, so Python's own warning names them, and nothing was sent."""
    async with fake.session() as session:
        with pytest.warns(RuntimeWarning, match=r"^coroutine 'Peerbet\.post' was never awaited"):
            session.peerbet.post("hello")  # type: ignore[unused-coroutine]
    assert fake.requests == []


async def test_python_names_the_coroutine_that_was_used_as_a_result(fake: FakeServices) -> None:
    """Reading from it, looping over it or indexing it is an error that names a coroutine."""
    async with fake.session() as session:
        call = session.pythbots.unread_mail()
        with pytest.raises(AttributeError, match="'coroutine' object has no attribute 'text'"):
            _ = call.text  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match="'coroutine' object is not iterable"):
            list(call)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="'coroutine' object is not subscriptable"):
            _ = call[0]  # type: ignore[index]
        assert await call == ()
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await call
