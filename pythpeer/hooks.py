"""Hooks, and the classes of their events; calls, streams and pollers make the events.

A hook cannot break or change a request, and cannot delay it unless it is a plain function that
blocks. Events are frozen, and none of them holds a key, or any text of messages or users.
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
"""Maximum number of events that wait for one asynchronous hook."""

CLOSE_TIMEOUT: Final = 1.0
"""Seconds that closing a session waits for asynchronous hooks, and again after cancelling them."""

_ENDS: Final = (asyncio.CancelledError, GeneratorExit)
"""What ends a coroutine from outside: its task was cancelled, or it was closed."""

Outcome = Literal["ok", "refused", "limited", "failed", "unknown", "cancelled"]
"""The outcome of a request.

``"ok"``: there is a result. ``"refused"``: the service returned an error message. ``"limited"``:
there were too many requests. ``"unknown"``: a write, or a read that changes the service, may or may
not have happened. ``"cancelled"``: the caller was cancelled. ``"failed"``: anything else.
"""


class RequestEvent(msgspec.Struct, frozen=True):
    """A request is about to be sent: it has its token."""

    endpoint: str
    """Name of the endpoint, such as ``"peerbet.chat.get"``."""

    url: str
    """The URL: keys and text are replaced by ``***``, numbers and bare names are shown as sent."""

    attempt: int
    """Number of the attempt, from 1; for a poll of a stream, one more than the failures in a row
    before it."""

    waited: float
    """Seconds that the request waited for its token."""


class ResponseEvent(msgspec.Struct, frozen=True):
    """A request has ended, with or without a response."""

    endpoint: str
    """Name of the endpoint."""

    url: str
    """The URL, as in `RequestEvent`."""

    attempt: int
    """Number of the attempt, as in `RequestEvent`."""

    waited: float
    """Seconds that the request waited for its token."""

    duration: float
    """Seconds from the token to the end: connecting, sending, and reading the response."""

    status: int | None
    """HTTP status; ``None`` where the head of a response did not arrive."""

    outcome: Outcome
    """Outcome of the request."""

    error: str | None
    """Name of the error's class; ``None`` without an error."""


class RetryEvent(msgspec.Struct, frozen=True):
    """A read failed and will be repeated, by a call or by a stream."""

    endpoint: str
    """Name of the endpoint."""

    attempt: int
    """Number of the attempt that failed, from 1."""

    delay: float
    """Seconds until the next attempt; the wait for its token is added to them."""

    status: int | None
    """HTTP status of the failed attempt; ``None`` where its error has none."""

    error: str
    """Name of the error's class."""


class GapEvent(msgspec.Struct, frozen=True):
    """A stream found a gap, in which messages may be missing: see `Stream.gaps`."""

    endpoint: str
    """Name of the endpoint."""

    after: int
    """Missing messages have ids greater than this one."""

    before: int
    """Missing messages have ids smaller than this one."""


class StoreEvent(msgspec.Struct, frozen=True):
    """The items of a poll are in the store."""

    endpoint: str
    """Name of the endpoint."""

    items: int
    """Number of new items."""

    duplicates: int
    """Number of items that were in the store already, and were dropped."""

    skipped: int
    """Number of items that could not be decoded."""

    duration: float
    """Seconds that the store needed."""


class DeliveryEvent(msgspec.Struct, frozen=True):
    """A stream has read items from its log, and will deliver them one by one."""

    endpoint: str
    """Name of the endpoint."""

    stream: str | None
    """Name of the stream; ``None`` without one."""

    items: int
    """Number of items."""

    lag: int
    """Distance, in ids, from the last of them to the newest item that the session knows of."""


Hook = Callable[[E], Awaitable[None] | None]
"""A function or a coroutine function that receives an event."""


class Telemetry:
    """Base class for hooks on every kind of event: the argument ``telemetry`` of `Session`.

    Override the methods for the events of interest; by default each does nothing. The rules for
    the hooks of `Session` hold for these methods too.
    """

    def on_request(self, event: RequestEvent, /) -> Awaitable[None] | None:
        """Receive the event of a request that is about to be sent."""

    def on_response(self, event: ResponseEvent, /) -> Awaitable[None] | None:
        """Receive the event of a request that has ended."""

    def on_retry(self, event: RetryEvent, /) -> Awaitable[None] | None:
        """Receive the event of a read that will be repeated."""

    def on_gap(self, event: GapEvent, /) -> Awaitable[None] | None:
        """Receive the event of a gap, in which messages may be missing."""

    def on_store(self, event: StoreEvent, /) -> Awaitable[None] | None:
        """Receive the event of a poll whose items are in the store."""

    def on_delivery(self, event: DeliveryEvent, /) -> Awaitable[None] | None:
        """Receive the event of items that a stream has read from its log."""


class Hooks:
    """The hooks of one session: a tuple of listeners for each kind of event, often empty.

    The code that creates an event first checks whether there is a listener, so that without hooks
    an event costs almost nothing. The tuples never change.
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
        source = telemetry or Telemetry()
        self.request: Final[Listeners[RequestEvent]] = _listeners(
            "on_request", on_request, source.on_request
        )
        """Listeners for requests that are about to be sent."""

        self.response: Final[Listeners[ResponseEvent]] = _listeners(
            "on_response", on_response, source.on_response
        )
        """Listeners for requests that have ended."""

        self.retry: Final[Listeners[RetryEvent]] = _listeners("on_retry", on_retry, source.on_retry)
        """Listeners for reads that will be repeated."""

        self.gap: Final[Listeners[GapEvent]] = _listeners("on_gap", on_gap, source.on_gap)
        """Listeners for gaps."""

        self.store: Final[Listeners[StoreEvent]] = _listeners("on_store", None, source.on_store)
        """Listeners for polls whose items are in the store."""

        self.delivery: Final[Listeners[DeliveryEvent]] = _listeners(
            "on_delivery", None, source.on_delivery
        )
        """Listeners for items that a stream has read."""

        self.has_request_listeners: Final[bool] = bool(self.request or self.response)
        """Whether there is a listener for requests or responses."""

    def reset(self) -> None:
        """Discard the pending events and tasks of a previous event loop: the session opens."""
        for listener in self._all():
            listener.reset()

    async def aclose(self) -> None:
        """Wait for asynchronous hooks, at most `CLOSE_TIMEOUT` seconds, then cancel them."""
        current = asyncio.current_task()
        tasks = {
            listener.task
            for listener in self._all()
            if listener.task is not None and not listener.task.done()
        }
        tasks.discard(current)  # a hook that closes the session does not wait for itself
        if not tasks:
            return
        _, pending = await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT)
        if not pending:
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
    """One hook. It receives its events in order; if it is asynchronous, one at a time.

    Invariants: at most one task runs, and it runs while there are pending events; there are at most
    `MAX_PENDING` of them; a failure and an overflow are logged once each.
    """

    __slots__ = ("_failure_logged", "_hook", "_name", "_overflow_logged", "_pending", "task")

    def __init__(self, name: str, hook: Hook[E]) -> None:
        self._name = name
        """Name of the hook in log records."""

        self._hook = hook
        """The function of the user."""

        self._failure_logged = False
        """Whether a failure was logged: set once, by ``_log_failure``."""

        self._overflow_logged = False
        """Whether a dropped event was logged: set once, by ``_enqueue``."""

        self._pending: deque[Awaitable[object]] = deque()
        """What an asynchronous hook returned and was not awaited yet, oldest first: appended by
        ``_enqueue``, removed by ``_run_queue`` and `clear`."""

        self.task: asyncio.Task[None] | None = None
        """The task that awaits the pending events: started by ``_enqueue``, ``None`` before the
        first one and after `reset`."""

    def __call__(self, event: E) -> None:
        """Pass *event* to the hook. Raises nothing: a failure of the hook is logged."""
        try:
            result = self._hook(event)
        # A plain function that raises one of these was not cancelled or closed: it awaits nothing.
        except (Exception, *_ENDS) as error:  # noqa: BLE001  # it is the user's
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
                    "hook %s is too slow, events are dropped", self._name, extra=self._extra
                )
            return
        self._pending.append(result)
        if self.task is None or self.task.done():
            self.task = asyncio.ensure_future(self._run_queue())

    async def _run_queue(self) -> None:
        task = asyncio.current_task()
        try:
            while self._pending:
                try:
                    await self._pending.popleft()
                except _ENDS as error:
                    if task is None or task.cancelling() or not _is_running(task):
                        raise
                    self._log_failure(error)  # the hook's, or of what it awaited: not of this task
                except Exception as error:  # noqa: BLE001  # it is the user's
                    self._log_failure(error)
        finally:
            self.clear()

    def _log_failure(self, error: BaseException) -> None:
        if not self._failure_logged:
            self._failure_logged = True
            logger.error(
                "hook %s failed, it still receives events (logged once)",
                self._name,
                exc_info=error,
                extra=self._extra,
            )

    @property
    def _extra(self) -> dict[str, object]:
        return {"hook": self._name}

    def clear(self) -> None:
        """Discard the pending events."""
        while self._pending:
            _close(self._pending.popleft())

    def reset(self) -> None:
        """Discard the pending events and the task, because its event loop has ended."""
        self.clear()
        self.task = None


Listeners = tuple[Listener[E], ...]
"""The listeners for one kind of event."""


def _is_running(task: asyncio.Task[None]) -> bool:
    """Return whether *task* runs now; its coroutine also does while it is closed from outside."""
    try:
        return asyncio.current_task() is task
    except RuntimeError:  # no event loop runs
        return False


def _close(result: Awaitable[object]) -> None:
    """Close a coroutine that will not be awaited, so that Python does not warn about it."""
    if inspect.iscoroutine(result):
        result.close()


def _listeners(name: str, hook: Hook[E] | None, method: Hook[E]) -> Listeners[E]:
    """Return a listener for *hook* if there is one, and for *method* if it is overridden."""
    listeners: list[Listener[E]] = []
    if hook is not None:
        if not callable(hook):
            raise InvalidRequestError(f"{name} must be a function or a coroutine function")
        listeners.append(Listener(name, hook))
    if getattr(method, "__func__", method) is not getattr(Telemetry, name):
        owner = type(getattr(method, "__self__", method)).__name__
        listeners.append(Listener(f"{owner}.{name}", method))
    return tuple(listeners)


def outcome_of(error: BaseException | None) -> Outcome:
    """Return the outcome of a request that ended with *error*, or with a result (``None``)."""
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
