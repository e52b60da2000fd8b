"""`Checker`: compares what the services received and what workers recorded with the promises.

It knows no process and no clock: `chaos.py` calls it with each event and its time. The state of
one round is forgotten at its end, so that it stays small in a run of any length.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

Kind = Literal["chat", "mail"]

SILENCE: Final = 15.0
"""Seconds without an item, while one is due, that a stream may pass with a health of ok."""

SLACK: Final = 0.5
"""Seconds before and after a trouble of Redis whose acknowledgements it may have lost."""

TAKEOVER: Final = 2.0
"""Seconds after the end of a trouble in which items of workers that seemed dead are redelivered."""

NEW_NAMES: Final = 15.0
"""Seconds after a store was emptied in which a stream of the chat may begin as that of a new name:
its program was not running, or ended before it stored its position again."""

ROUNDING: Final = 0.002
"""Seconds by which the clock of the services is not exact."""


class Violation(NamedTuple):
    """A promise that was not kept."""

    at: float
    promise: str
    """A few words that name the promise; the summary counts by them."""
    details: str


class Window(NamedTuple):
    """A time in which workers, or one of them, may not have reached the store."""

    worker: str | None
    """The worker; ``None`` for all."""
    start: float
    end: float

    def covers(self, worker: str, at: float) -> bool:
        """Return whether an item may be redelivered that this worker had at this time."""
        mine = self.worker is None or self.worker == worker
        return mine and self.start - SLACK <= at <= self.end + TAKEOVER


class Delivery(NamedTuple):
    """The last time that an item was delivered to a name."""

    worker: str
    at: float


class Reading:
    """What one name of a stream has received, and what is due."""

    def __init__(self, name: str, kind: Kind) -> None:
        self.name: Final = name
        self.kind: Final = kind
        self.due: dict[str, float] = {}
        """When each item came into the service that was not delivered yet."""
        self.delivered: dict[str, Delivery] = {}
        """The items that were delivered."""
        self.current: dict[str, str] = {}
        """By worker: the item that it has not acknowledged."""
        self.unacknowledged: set[str] = set()
        """The items that were not acknowledged when their worker ended."""
        self.newest = 0
        """The greatest number of an item that was delivered."""
        self.last_at = 0.0
        """When an item was delivered last."""

    def __str__(self) -> str:
        return f"{self.kind} of {self.name!r}"

    def due_before(self, since: float) -> list[str]:
        """Return the items that came into the service before a time and were not delivered yet."""
        return [text for text, at in self.due.items() if at < since]

    def end(self, worker: str, *, clean: bool) -> None:
        """A worker has ended; if that was *clean*, all that it had is acknowledged."""
        current = self.current.pop(worker, None)
        if current is not None:
            self.unacknowledged.discard(current) if clean else self.unacknowledged.add(current)


class Checker:
    """The promises, and what has been seen so far.

    On a store that is *shared*, streams of one name share its items. There an acknowledgement may
    be lost with its worker while the store could not be reached.
    """

    def __init__(
        self, streams: Iterable[tuple[str, Kind]], *, shared: bool, mail_ids: bool, interval: float
    ) -> None:
        self.readings = {stream: Reading(*stream) for stream in streams}
        self._shared = shared
        self._mail_ids = mail_ids
        self._interval = interval
        self.has_complete_history = True
        """Whether the history has all mails. Otherwise it cannot count them, and mail may be
        redelivered, marked. Changed by the services."""
        self.violations: list[Violation] = []
        self.counts: Counter[str] = Counter()
        """What was seen, for the report of a round."""
        self.numbers: dict[str, int] = {}
        """By its text: the number of each message, in their order in the chat."""
        self._ids: dict[str, int] = {}
        """By its text: the id of each message."""
        self._next_number = 1
        self._posts: dict[str, str] = {}
        """By its text: the outcome of each post: "pending", "posted", "not sent"."""
        self._emptied_at = -math.inf
        """When the store was emptied last."""
        self._windows: list[Window] = []
        self._redeliveries: list[tuple[Violation, Delivery]] = []
        """The violations of a round for which a trouble may still be reported."""
        self._requests: dict[str, float] = {}
        """By endpoint: the time of the last request."""
        self._reported: set[tuple[str, str]] = set()
        """The streams and items of which a silence was reported."""

    def report(self, at: float, promise: str, details: str) -> None:
        self.violations.append(Violation(at, promise, details))

    # -- the services -----------------------------------------------------------------------------

    def message(self, at: float, text: str, id: int) -> None:
        """A message has appeared in the chat."""
        if text in self.numbers:
            self.report(at, "a post is sent at most once", f"{text!r} is in the chat twice")
            return
        if self._posts.get(text) == "not sent":
            self.report(at, "an error that says not sent is right", f"{text!r} is in the chat")
        self.numbers[text], self._ids[text] = self._next_number, id
        self._next_number += 1
        self._owe("chat", text, at)

    def mail(self, at: float, text: str) -> None:
        """A mail has come into the mailbox."""
        self._owe("mail", text, at)

    def _owe(self, kind: Kind, text: str, at: float) -> None:
        self.counts[kind] += 1
        for reading in self.readings.values():
            if reading.kind == kind:
                reading.due[text] = at

    def forget_due_messages(self) -> None:
        """The chat has none of its messages any more, or the streams may have begun after them."""
        for reading in self.readings.values():
            if reading.kind == "chat":
                reading.due.clear()

    def request(self, at: float, endpoint: str, late: float, guard: float) -> None:
        """A request has arrived. Requests of the last seconds may have been recorded *late*.

        A process that stands still measures that only afterwards. A request that was recorded later
        than after the *guard*, and whose response was lost, seems to be too close to the next one.
        """
        self.counts["requests"] += 1
        previous, self._requests[endpoint] = self._requests.get(endpoint), at
        if previous is None:
            return
        distance, unknown = at - previous, late if late > guard / 2 else 0.0
        if distance + unknown < self._interval - ROUNDING:
            self.report(
                at, "no interval is short", f"{endpoint}: {distance:.3f} s, late {late:.3f}"
            )

    # -- workers ----------------------------------------------------------------------------------

    def item(
        self, at: float, worker: str, stream: tuple[str, Kind], text: str, *, recovered: bool
    ) -> None:
        """A worker has received an item; the item before it is acknowledged."""
        reading = self.readings[stream]
        self.counts["delivered"] += 1
        earlier = reading.delivered.get(text)
        if earlier is not None:
            self._check_redelivery(at, worker, reading, text, earlier, recovered=recovered)
        elif reading.kind == "chat":
            self._check_order(at, reading, worker, text)
        reading.due.pop(text, None)
        reading.delivered[text] = Delivery(worker, at)
        reading.current[worker] = text
        reading.last_at = at

    def _check_redelivery(
        self,
        at: float,
        worker: str,
        reading: Reading,
        text: str,
        earlier: Delivery,
        *,
        recovered: bool,
    ) -> None:
        self.counts["redelivered"] += 1
        if text in reading.unacknowledged:
            reading.unacknowledged.discard(text)
        elif reading.kind == "mail" and recovered and not self._can_count:
            self.counts["recovered"] += 1
        elif not self._excused(earlier):
            self.report(
                at,
                "nothing acknowledged is redelivered",
                f"{reading}: {text!r}, to {worker} {at - earlier.at:.2f} s after {earlier.worker}"
                f"{self._windows_near(earlier)}",
            )
            self._redeliveries.append((self.violations[-1], earlier))

    @property
    def _can_count(self) -> bool:
        return self._mail_ids and self.has_complete_history

    def _windows_near(self, delivery: Delivery) -> str:
        """Return when the worker could not reach the store around a delivery."""
        near = (
            window
            for window in self._windows
            if window.worker in (None, delivery.worker) and abs(window.end - delivery.at) < 10.0
        )
        return "".join(
            f"; store out of reach from {window.start - delivery.at:+.2f}"
            f" to {window.end - delivery.at:+.2f} s"
            for window in near
        )

    def _check_order(self, at: float, reading: Reading, worker: str, text: str) -> None:
        number = self.numbers.get(text)
        if number is None:
            self.report(at, "items are those of the service", f"{reading}: {text!r}")
            return
        if number < reading.newest and not self._shared:
            self.report(at, "messages come in order", f"{reading}: {text!r}")
        reading.newest = max(reading.newest, number)

    def _excused(self, delivery: Delivery) -> bool:
        """Return whether the acknowledgement of an item may be lost."""
        return self._shared and any(
            window.covers(delivery.worker, delivery.at) for window in self._windows
        )

    def ended(self, at: float, worker: str, *, clean: bool) -> None:
        """A worker has ended, by a signal that kills or by itself."""
        for reading in self.readings.values():
            reading.end(worker, clean=clean)
        if not clean:
            self._windows.append(Window(worker, at, at))

    def trouble_begins(self, at: float, worker: str | None = None) -> Window:
        """The store cannot be reached from now on, or is not used by a worker that stands still.

        On a shared store the worker may count as dead then, and its current item is redelivered.
        """
        window = Window(worker, at, math.inf)
        self._windows.append(window)
        if self._shared:
            for reading in self.readings.values():
                for holder, text in reading.current.items():
                    if worker in (None, holder):
                        reading.unacknowledged.add(text)
        return window

    def trouble_ends(self, at: float, window: Window) -> None:
        self._windows.remove(window)
        self._windows.append(window._replace(end=at))

    def was_late(self, at: float, seconds: float, worker: str | None = None) -> None:
        """A worker, or what forwards the commands of all, has just stood still for some seconds.

        The worker may have counted as dead. That is reported afterwards.
        """
        self._windows.append(Window(worker, at - seconds, at))
        for violation, delivery in list(self._redeliveries):
            if self._excused(delivery):
                self._redeliveries.remove((violation, delivery))
                self.violations.remove(violation)

    def store_emptied(self, at: float) -> None:
        """The store has lost its positions and its mail: anything may be redelivered."""
        self._emptied_at = at
        for reading in self.readings.values():
            reading.unacknowledged.update(reading.delivered)

    def began(self, at: float, stream: tuple[str, Kind]) -> None:
        """A stream has begun: it may have lost its position, and then continues with new messages.

        Mail is delivered nevertheless.
        """
        reading = self.readings[stream]
        if reading.kind == "chat" and at < self._emptied_at + NEW_NAMES:
            reading.due.clear()

    def posting(self, text: str) -> None:
        self._posts[text] = "pending"

    def posted(self, at: float, text: str, id: int) -> None:
        """A post has returned an id."""
        self.counts["posted"] += 1
        self._posts[text] = "posted"
        if self._ids.get(text) != id:
            self.report(at, "a post returns its id", f"{text!r}: {id}, not {self._ids.get(text)}")

    def not_posted(self, at: float, text: str, *, sent: bool) -> None:
        """A post has raised an error."""
        if not sent:
            self._posts[text] = "not sent"
            if text in self.numbers:
                self.report(at, "an error that says not sent is right", f"{text!r} is in the chat")

    def check_silence(self, at: float, stream: tuple[str, Kind], awake_since: float) -> None:
        """Check that a stream which could deliver since a time has delivered what was due then.

        *awake_since* is when its workers were last stopped, started, or not ok.
        """
        reading = self.readings[stream]
        if not reading.due:
            return
        text, since = next(iter(reading.due.items()))
        silent_since = max(since, awake_since, reading.last_at)
        if at - silent_since > SILENCE and (str(reading), text) not in self._reported:
            self._reported.add((str(reading), text))
            requests = ", ".join(
                f"{endpoint} {at - last:.1f} s ago" for endpoint, last in self._requests.items()
            )
            details = f"{reading}: {text!r} is due for {at - since:.1f} s, and health is ok"
            details += f"; last requests: {requests}"
            self.report(at, "no stream is silent", details)

    # -- the end of a round -----------------------------------------------------------------------

    @property
    def max_due(self) -> int:
        """How many items are due to the slowest stream."""
        return max(len(reading.due) for reading in self.readings.values())

    def has_all(self, since: float) -> bool:
        """Return whether each stream has all items that came into the services before a time."""
        return not any(reading.due_before(since) for reading in self.readings.values())

    def end_round(self, at: float, since: float) -> Iterator[str]:
        """Report what came before *since* and is lost, and forget the round.

        Yields the texts of what was delivered.
        """
        for reading in self.readings.values():
            lost = reading.due_before(since)
            if lost:
                some = ", ".join(map(repr, lost[:5]))
                self.report(at, "nothing is lost", f"{reading}: {len(lost)} items: {some}")
                reading.due.clear()
            kept = set(reading.current.values()) | reading.unacknowledged
            yield from (text for text in reading.delivered if text not in kept)
        self._windows = [window for window in self._windows if window.end > at - 60.0]
        self._redeliveries.clear()

    def forget(self, texts: set[str]) -> None:
        """Forget items of which the services know nothing any more."""
        for text in texts:
            self.numbers.pop(text, None)
            self._ids.pop(text, None)
            self._posts.pop(text, None)
            for reading in self.readings.values():
                reading.delivered.pop(text, None)
        self._reported.clear()


class Lateness:
    """By how much the loop of the services was late within the last seconds."""

    def __init__(self, seconds: float = 5.0) -> None:
        self._seconds = seconds
        self._late: deque[tuple[float, float]] = deque()

    def add(self, at: float, late: float) -> None:
        self._late.append((at, late))
        while self._late[0][0] < at - self._seconds:
            self._late.popleft()

    @property
    def worst(self) -> float:
        return max((late for _, late in self._late), default=0.0)
