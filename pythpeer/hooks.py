"""Who looks on: hooks, and the events they are given.

Nothing here can break, delay or change a call, but a hook that is no coroutine function and takes
its time. Events are frozen, and none of them holds a key or anything that somebody wrote.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Generic, Literal, TypeVar

import msgspec

from .errors import ApiError, InvalidRequestError, OutcomeUnknownError, RateLimitedError

__all__ = [
    "DeliveryEvent",
    "GapEvent",
    "Hook",
    "Hooks",
    "Outcome",
    "RequestEvent",
    "ResponseEvent",
    "RetryEvent",
    "StoreEvent",
    "Telemetry",
    "outcome_of",
]

logger: Final = logging.getLogger(__name__)

E = TypeVar("E")

MAX_PENDING: Final = 1000
"""Events that may wait for one asynchronous hook."""

CLOSE_TIMEOUT: Final = 1.0
"""Seconds that closing a session leaves to asynchronous hooks, and again to end once cancelled."""

Outcome = Literal["ok", "refused", "limited", "failed", "unknown", "cancelled"]
"""What became of a request.

``"ok"``: there is an answer. ``"refused"``: the service said no in its own words. ``"limited"``: it
was asked too often. ``"unknown"``: a write, or a read that changes the service, may or may not have
happened. ``"cancelled"``: whoever asked went away. ``"failed"``: anything else.
"""


class RequestEvent(msgspec.Struct, frozen=True):
    """A request is about to be sent: it has its token."""

    endpoint: str
    """The endpoint's name, such as ``"peerbet.chat.get"``."""

    url: str
    """Where it goes: keys and all that is text stand as ``***``, numbers and bare names as sent."""

    attempt: int
    """1 for the first try; of a stream's poll, one more for each failure in a row before it."""

    waited: float
    """Seconds that it waited for its token."""


class ResponseEvent(msgspec.Struct, frozen=True):
    """A request is over, whether or not there was an answer."""

    endpoint: str
    url: str
    """As in `RequestEvent`."""
    attempt: int
    waited: float
    duration: float
    """Seconds from the token to the end: connecting, sending, reading the answer."""

    status: int | None
    """The HTTP status, if an answer came so far."""

    outcome: Outcome
    error: str | None
    """The name of the error's class; ``None`` where all is well."""


class RetryEvent(msgspec.Struct, frozen=True):
    """A read failed and is going to be asked again: by a call, or by a stream."""

    endpoint: str
    attempt: int
    """The number of the attempt that failed, from 1."""

    delay: float
    """Seconds until the next; waiting for its token comes on top."""

    status: int | None
    error: str
    """The name of the error's class."""


class GapEvent(msgspec.Struct, frozen=True):
    """A stream came across messages that may be missing: `Stream.gaps`."""

    endpoint: str
    after: int
    before: int


class StoreEvent(msgspec.Struct, frozen=True):
    """What a poll brought is in the store."""

    endpoint: str
    items: int
    """How many were new."""

    duplicates: int
    """How many were known already, and were dropped."""

    skipped: int
    """How many could not be decoded."""

    duration: float
    """Seconds that the store took."""


class DeliveryEvent(msgspec.Struct, frozen=True):
    """A stream took items from its log, to hand them out one by one."""

    endpoint: str
    stream: str | None
    """The stream's name, if it has one."""

    items: int
    lag: int
    """How far, in ids, the last of them is behind the newest item the session knows of."""


Hook = Callable[[E], Awaitable[None] | None]
"""A function or coroutine function that is given an event."""


class Telemetry:
    """Everything there is to see: override what is of interest; each method does nothing by itself.

    The argument ``telemetry`` of `Session`. What is said of hooks there holds for these methods.
    """

    def on_request(self, event: RequestEvent, /) -> Awaitable[None] | None:
        """A request is about to be sent."""

    def on_response(self, event: ResponseEvent, /) -> Awaitable[None] | None:
        """A request is over."""

    def on_retry(self, event: RetryEvent, /) -> Awaitable[None] | None:
        """A read is going to be asked again."""

    def on_gap(self, event: GapEvent, /) -> Awaitable[None] | None:
        """Messages may be missing."""

    def on_store(self, event: StoreEvent, /) -> Awaitable[None] | None:
        """What a poll brought is in the store."""

    def on_delivery(self, event: DeliveryEvent, /) -> Awaitable[None] | None:
        """A stream took items from its log."""


class Hooks:
    """The hooks of one session: a tuple of listeners for each kind of event, mostly empty.

    Whoever has news looks first whether anybody listens, so that it costs next to nothing if not.
    """

    def __init__(
        self,
        *,
        on_request: Hook[RequestEvent] | None = None,
        on_response: Hook[ResponseEvent] | None = None,
        on_retry: Hook[RetryEvent] | None = None,
        on_gap: Hook[GapEvent] | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        if telemetry is not None and not isinstance(telemetry, Telemetry):
            raise InvalidRequestError("telemetry must be a Telemetry, such as otel.OpenTelemetry()")
        of = telemetry or Telemetry()
        self.request: Final[Listeners[RequestEvent]] = _listeners(
            "on_request", on_request, of.on_request
        )
        self.response: Final[Listeners[ResponseEvent]] = _listeners(
            "on_response", on_response, of.on_response
        )
        self.retry: Final[Listeners[RetryEvent]] = _listeners("on_retry", on_retry, of.on_retry)
        self.gap: Final[Listeners[GapEvent]] = _listeners("on_gap", on_gap, of.on_gap)
        self.store: Final[Listeners[StoreEvent]] = _listeners("on_store", None, of.on_store)
        self.delivery: Final[Listeners[DeliveryEvent]] = _listeners(
            "on_delivery", None, of.on_delivery
        )
        self.has_request_listeners: Final[bool] = bool(self.request or self.response)
        """Whether anybody looks at requests."""

    def reset(self) -> None:
        """The session is open: what another loop left behind is gone with it."""
        for listener in self._all():
            listener.reset()

    async def aclose(self) -> None:
        """Let asynchronous hooks end, for a moment; then end them."""
        current = asyncio.current_task()
        tasks = {task for listener in self._all() if (task := listener.task) and not task.done()}
        tasks.discard(current)  # a hook that closes the session does not wait for itself
        if not tasks or not (await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT))[1]:
            return
        for listener in self._all():
            if listener.task is not current:
                listener.clear()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT)

    def _all(self) -> Iterator[Listener[Any]]:
        kinds = (self.request, self.response, self.retry, self.gap, self.store, self.delivery)
        return itertools.chain.from_iterable(kinds)


class Listener(Generic[E]):
    """One hook. Its events reach it in order; if it is asynchronous, one after the other."""

    __slots__ = ("_failure_logged", "_hook", "_name", "_overflow_logged", "_pending", "task")

    def __init__(self, name: str, hook: Hook[E]) -> None:
        self._name = name
        self._hook = hook
        self._failure_logged = False
        self._overflow_logged = False
        self._pending: deque[Awaitable[object]] = deque()
        self.task: asyncio.Task[None] | None = None
        """What an asynchronous hook runs in while there is anything for it to do."""

    def __call__(self, event: E) -> None:
        """Tell of an event. Raises nothing."""
        try:
            result = self._hook(event)
        # One who raises a cancellation without waiting for anything was not cancelled.
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # it is the user's
            self._log_failure(error)
            return
        if result is not None and inspect.isawaitable(result):
            self._enqueue(result)

    def _enqueue(self, result: Awaitable[object]) -> None:
        if len(self._pending) >= MAX_PENDING:
            _close(result)
            if not self._overflow_logged:
                self._overflow_logged = True
                logger.warning(
                    "the hook %s is too slow: it misses events", self._name, extra=self._extra
                )
            return
        self._pending.append(result)
        if self.task is None or self.task.done():
            self.task = asyncio.ensure_future(self._run_queue())

    async def _run_queue(self) -> None:
        try:
            while self._pending:
                try:
                    await self._pending.popleft()
                except asyncio.CancelledError as error:
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                    self._log_failure(error)  # what it waited for was cancelled, and not this
                except Exception as error:  # noqa: BLE001  # it is the user's
                    self._log_failure(error)
        finally:
            self.clear()

    def _log_failure(self, error: BaseException) -> None:
        if not self._failure_logged:
            self._failure_logged = True
            logger.error(
                "the hook %s failed; it goes on being called, and this is said once",
                self._name,
                exc_info=error,
                extra=self._extra,
            )

    @property
    def _extra(self) -> dict[str, object]:
        return {"hook": self._name}

    def clear(self) -> None:
        """Forget the events that wait."""
        while self._pending:
            _close(self._pending.popleft())

    def reset(self) -> None:
        """Forget the task as well: its loop is gone."""
        self.clear()
        self.task = None


Listeners = tuple[Listener[E], ...]
"""Those who are told of events of one kind."""


def _close(result: Awaitable[object]) -> None:
    """Spare a coroutine that will not be awaited the warning that it was not."""
    if inspect.iscoroutine(result):
        result.close()


def _listeners(name: str, hook: Hook[E] | None, method: Hook[E]) -> Listeners[E]:
    """Those of the two that are there: a hook, and a telemetry's method if it is overridden."""
    found: list[Listener[E]] = []
    if hook is not None:
        if not callable(hook):
            raise InvalidRequestError(f"{name} must be a function or a coroutine function")
        found.append(Listener(name, hook))
    if getattr(method, "__func__", method) is not getattr(Telemetry, name):
        owner = type(getattr(method, "__self__", method)).__name__
        found.append(Listener(f"{owner}.{name}", method))
    return tuple(found)


def outcome_of(error: BaseException | None) -> Outcome:
    """Sort what came of a request."""
    match error:
        case None:
            return "ok"
        case asyncio.CancelledError() | GeneratorExit():
            return "cancelled"
        case RateLimitedError():
            return "limited"
        case ApiError():
            return "refused"
        case OutcomeUnknownError():
            return "unknown"
        case _:
            return "failed"
