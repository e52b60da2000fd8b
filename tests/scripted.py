"""Both services on one loopback port, with a script: undocumented habits, and faults per request.

The server is a bare protocol without tasks, so that a test can count the client's own. Time is the
event loop's. What a request is called: ``get``, ``set``, ``readnew``, ``readall``, ``send``, or
``other``.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, Literal, Self
from urllib.parse import parse_qsl

import msgspec

from pythpeer import Rate, Session

Order = Literal["ascending", "descending", "shuffled"]
Window = Literal["newest", "oldest"]
End = Literal["answer", "drop", "reset", "cut", "hang"]

KEY = "scripted-key"
FAST = Rate(1.0, 1, 0.0)
"""The documented interval, to the millisecond: no guard, so that polls can be counted."""


class Fault(msgspec.Struct, frozen=True):
    """What happens to one request instead of an answer, or before it."""

    effect: bool = True
    """Whether the service does what it was asked, mark mail as read above all."""

    end: End = "answer"
    status: int = 200
    body: bytes | None = None
    """In place of the service's answer."""

    headers: str = ""
    before: float = 0.0
    """Seconds until the service acts."""

    after: float = 0.0
    """Seconds from then until the answer."""

    hidden: float = 0.0
    """Seconds from then until a posted message is shown."""


OK = Fault()
DROP = Fault(end="drop")
RESET = Fault(end="reset")
DROP_UNSEEN = Fault(effect=False, end="drop")
CUT = Fault(end="cut")
HANG = Fault(end="hang")
GARBAGE = Fault(body=b'[{"id": 1, "message"')
EMPTY = Fault(body=b"")
HTML = Fault(body=b"<!DOCTYPE html><html><body>[]</body></html>")
ERROR_500 = Fault(status=500, body=b"<html>Internal Server Error</html>")
ERROR_503 = Fault(effect=False, status=503, body=b"")
TOO_MANY = Fault(effect=False, status=429, body=b"")
REFUSED = Fault(effect=False, body=b'{"error": "come back later"}')
DENIED = Fault(effect=False, body=b'{"error": "no access"}')
NOT_FOUND = Fault(effect=False, status=404, body=b"")


class Asked(msgspec.Struct, frozen=True):
    """One request as it came in."""

    kind: str
    params: dict[str, str]
    at: float


class Letter(msgspec.Struct):
    """One mail in the box."""

    id: int
    sender: str
    text: str
    read: bool = False


class Scripted:
    """The two services while ``async with`` lasts.

    ``window`` says which end is cut off when more than fits came after ``mid``. ``overlap`` is how
    many messages up to ``mid`` are shown again (1 is ``mid`` itself), ``repeat`` how often each
    message stands in an answer. ``shown_as`` is what becomes of a posted text. ``mail_ids`` says
    whether mails have ids, ``readall_marks`` whether reading all of them marks them as read.
    """

    def __init__(
        self,
        *,
        window: Window = "newest",
        overlap: int = 0,
        repeat: int = 1,
        order: Order = "ascending",
        shown_as: Callable[[str], str] = str,
        mail_ids: bool = True,
        readall_marks: bool = False,
    ) -> None:
        self.window: Window = window
        self.overlap = overlap
        self.repeat = repeat
        self.order: Order = order
        self.shown_as = shown_as
        self.mail_ids = mail_ids
        self.readall_marks = readall_marks
        self.lines: list[tuple[int, object]] = []
        self.letters: list[Letter] = []
        self.requests: list[Asked] = []
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.constant: dict[str, Fault] = {}
        """Faults that happen every time, once `faults` are used up."""
        self._shown_at: dict[int, float] = {}
        self._random = random.Random(7)
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._port = 0

    # -- what a test does -------------------------------------------------------------------------

    def say(self, many: int = 1, *, step: int = 1) -> int:
        """Add *many* messages, ids *step* apart, and return the last id."""
        for _ in range(many):
            id = self.newest + step
            self.lines.append((id, line(id)))
        return self.newest

    def post(self, text: str, **bits: int) -> int:
        """Add one message of the key's user, its bits as given, and return its id."""
        id = self.newest + 1
        self.lines.append((id, line(id, text) | {"my": 1} | bits))
        return id

    @property
    def newest(self) -> int:
        """The last message's id, 0 without any."""
        return self.lines[-1][0] if self.lines else 0

    def deliver(self, *texts: str, sender: str = "alice") -> None:
        """Put unread mail into the box."""
        for text in texts:
            self.letters.append(Letter(len(self.letters) + 101, sender, text))

    def script(self, kind: str, *faults: Fault) -> None:
        """Let the next requests of this *kind* meet these faults, one each."""
        self.faults[kind].extend(faults)

    def asked(self, *kinds: str) -> list[Asked]:
        """The requests of these kinds so far."""
        return [request for request in self.requests if request.kind in kinds]

    @property
    def url(self) -> str:
        """Where both services listen."""
        return f"http://127.0.0.1:{self._port}"

    def session(self, **overrides: Any) -> Session:
        """A session for these services, not yet open."""
        settings: dict[str, Any] = {
            "peerbet_url": self.url,
            "pythbots_url": self.url,
            "peerbet_key": KEY,
            "personal_key": KEY,
            "rates": {"peerbet.chat.get": FAST, "pythbots.mail": FAST},
            "timeout": 5.0,
        }
        return Session(**settings | overrides)

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections from now on, and drop those there are."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in list(self._connections):
            connection.transport.abort()
        await asyncio.sleep(0.001)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    # -- what the services do ---------------------------------------------------------------------

    def receive(self, connection: _Connection, target: str) -> None:
        params = dict(parse_qsl(target.partition("?")[2], keep_blank_values=True))
        kind = _kind(params)
        loop = asyncio.get_running_loop()
        self.requests.append(Asked(kind, params, loop.time()))
        queue = self.faults[kind]
        fault = queue.popleft() if queue else self.constant.get(kind, OK)
        loop.call_later(fault.before, self._act, connection, kind, params, fault)

    def _act(
        self, connection: _Connection, kind: str, params: dict[str, str], fault: Fault
    ) -> None:
        body = fault.body
        if fault.effect:
            document = self._answer(kind, params)
            if fault.hidden:
                self._shown_at[self.newest] = asyncio.get_running_loop().time() + fault.hidden
            body = json.dumps(document).encode() if body is None else body
        loop = asyncio.get_running_loop()
        loop.call_later(fault.after, connection.finish, fault, body or b"")

    def _answer(self, kind: str, params: dict[str, str]) -> object:
        match kind:
            case "get":
                return {"status": 1, "users_online": 1, "message_list": self._page(params)}
            case "set":
                return {"status": 1, "mid": self.post(self.shown_as(params["msg"]))}
            case "readnew":
                unread = [letter for letter in self.letters if not letter.read]
                return self._hand_out(unread, mark=True)
            case "readall":
                return self._hand_out(self.letters, mark=self.readall_marks)
            case _:
                return {"success": True}

    def _page(self, params: dict[str, str]) -> list[object]:
        size = min(int(params.get("last", 300 if "mid" in params else 50)), 300)
        now = asyncio.get_running_loop().time()
        lines = [entry for entry in self.lines if self._shown_at.get(entry[0], now) <= now]
        if "mid" not in params:
            shown = lines[-size:]
        else:
            mid = int(params["mid"])
            start = sum(id <= mid for id, _ in lines)
            shown = lines[max(0, start - self.overlap) :]
            shown = shown[:size] if self.window == "oldest" else shown[-size:]
        page = [message for _, message in shown for _ in range(self.repeat)]
        if self.order == "descending":
            page.reverse()
        elif self.order == "shuffled":
            self._random.shuffle(page)
        return page

    def _hand_out(self, letters: list[Letter], *, mark: bool) -> list[object]:
        answer: list[object] = []
        for letter in letters:
            shown: dict[str, object] = {
                "from": letter.sender,
                "message": letter.text,
                "read": int(letter.read),
            }
            if self.mail_ids:
                shown["id"] = letter.id
            answer.append(shown)
        if mark:
            for letter in letters:
                letter.read = True
        return answer


def line(id: int, text: str | None = None) -> dict[str, object]:
    """One message of the chat as documented."""
    return {
        "id": id,
        "by": "alice",
        "to": "",
        "msg": f"message {id}" if text is None else text,
        "date": "2012-12-12 21:12:21",
        "bot": 0,
        "my": 0,
        "me": 0,
    }


def _kind(params: dict[str, str]) -> str:
    for kind in ("readnew", "readall"):
        if kind in params:
            return kind
    if "message" in params:
        return "send"
    return params.get("action", "other")


class _Connection(asyncio.Protocol):
    """One connection: reads requests one after the other, and ends them as their fault says."""

    transport: asyncio.Transport

    def __init__(self, services: Scripted) -> None:
        self._services = services
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._services._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._services._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            self._services.receive(self, head.split(b" ", 2)[1].decode())

    def finish(self, fault: Fault, body: bytes) -> None:
        if self.transport.is_closing() or fault.end == "hang":
            return
        if fault.end == "reset":
            linger = struct.pack("ii", 1, 0)
            wire = self.transport.get_extra_info("socket")
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.transport.abort()
            return
        if fault.end != "drop":
            head = (
                f"HTTP/1.1 {fault.status} Scripted\r\nContent-Type: text/html\r\n"
                f"Content-Length: {len(body)}\r\n{fault.headers}\r\n"
            )
            whole = fault.end == "answer"
            self.transport.write(head.encode() + (body if whole else body[: len(body) // 2]))
        if fault.end != "answer":
            self.transport.close()
