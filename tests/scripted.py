"""Both services on one loopback port, with scripted faults: a thin layer on the test kit.

The responses are those of `FakeChat` and `FakePythBots`, with the quirks of `FakeServices`. It
differs from `FakeServices` in four points:

- The server is a protocol without tasks, so that a test can count the tasks of the client. It
  also needs about a third of the CPU time, and most tests of streams and posts use it.
- A fault can also delay a request before it is processed, or hide a posted message.
- A message of the chat can be replaced by any JSON: `Scripted.show`.
- Each key is a key of the same user, so that programs in other processes can have separate keys.

Time is the event loop's. The kind of a request is ``get``, ``set``, ``readnew``, ``readall``,
``send``, or the last part of the name of another endpoint.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from bisect import insort
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, Final, Literal, Self, Unpack

import msgspec
from helpers import ReusablePort

from pythpeer import Rate, Session
from pythpeer.testing.chat import ChatLine, FakeChat
from pythpeer.testing.directory import Chats, Users
from pythpeer.testing.keys import ApiKeys
from pythpeer.testing.mail import FakeMail, StoredMail
from pythpeer.testing.pythbots import FakePythBots
from pythpeer.testing.quirks import QuirkOptions, Quirks, make_quirks
from pythpeer.testing.requests import IncomingRequest
from pythpeer.testing.responses import RejectedError, php_json

Order = Literal["ascending", "descending", "shuffled"]
Window = Literal["newest", "oldest"]
End = Literal["answer", "drop", "reset", "cut", "hang"]

USER: Final = "scripted-user"
DATE: Final = "2012-12-12 21:12:21"
KEY = "scripted-key"
FAST = Rate(1.0, 1, 0.0)
"""The documented interval without a guard, so that a test can count polls in a given time."""


class ScriptedFault(msgspec.Struct, frozen=True):
    """What happens to one request instead of the usual response, or before it."""

    effect: bool = True
    """Whether the service processes the request, for instance marks mail as read."""

    end: End = "answer"
    """A complete response, or how the connection ends without one; "hang" keeps it open."""

    status: int = 200
    body: bytes | None = None
    """The body of the response; ``None``: that of the service."""

    headers: str = ""
    """Additional header lines, each with CRLF."""

    before: float = 0.0
    """Seconds until the service processes the request."""

    after: float = 0.0
    """Seconds from processing until the response."""

    hidden: float = 0.0
    """Seconds from processing until a posted message appears in the chat."""


OK = ScriptedFault()
DROP = ScriptedFault(end="drop")
RESET = ScriptedFault(end="reset")
DROP_WITHOUT_EFFECT = ScriptedFault(effect=False, end="drop")
CUT = ScriptedFault(end="cut")
HANG = ScriptedFault(end="hang")
GARBAGE = ScriptedFault(body=b'[{"id": 1, "message"')
EMPTY = ScriptedFault(body=b"")
HTML = ScriptedFault(body=b"<!DOCTYPE html><html><body>[]</body></html>")
ERROR_500 = ScriptedFault(status=500, body=b"<html>Internal Server Error</html>")
ERROR_503 = ScriptedFault(effect=False, status=503, body=b"")
ERROR_429 = ScriptedFault(effect=False, status=429, body=b"")
API_ERROR = ScriptedFault(effect=False, body=b'{"error": "come back later"}')
DENIED = ScriptedFault(effect=False, body=b'{"error": "no access"}')
NOT_FOUND = ScriptedFault(effect=False, status=404, body=b"")


class RecordedCall(msgspec.Struct, frozen=True):
    """One request that the services received."""

    kind: str
    params: Mapping[str, str]
    at: float
    """The loop's time at its arrival."""


class Scripted:
    """Both services while ``async with`` lasts, with the quirks that `FakeServices` accepts.

    *transform_text* makes the stored text from a posted one. Mails have no date and no sender's id,
    so without ids two mails with the same sender and text are equal.
    """

    def __init__(
        self, *, transform_text: Callable[[str], str] = str, **quirks: Unpack[QuirkOptions]
    ) -> None:
        self._transform_text = transform_text
        self.quirks = make_quirks(Quirks(names={"date": None, "from_id": None}), **quirks)
        """Changed by `set_quirks`; each request is answered with the current ones."""
        users, rng = Users(), random.Random(7)
        self.chat = FakeChat(quirks=lambda: self.quirks, date=lambda: DATE, rng=rng)
        self.mail = FakeMail(
            users, users.ensure(USER), quirks=lambda: self.quirks, date=lambda: DATE, rng=rng
        )
        self._pythbots = FakePythBots(
            users, Chats(users), self.mail, ApiKeys(), lambda: self.quirks
        )
        self.requests: list[RecordedCall] = []
        """All requests in the order of their arrival."""
        self.faults: defaultdict[str, deque[ScriptedFault]] = defaultdict(deque)
        """By the kind of a request: the faults of the next ones, which each arrival takes out."""
        self.default_faults: dict[str, ScriptedFault] = {}
        """By the kind of a request: the fault of each one for which `faults` has none."""
        self._documents: dict[int, object] = {}
        """By the id of a message: the JSON that replaces it; `show` adds to it."""
        self._hidden: set[int] = set()
        """The ids of posted messages that are not in the chat yet."""
        self._connections: set[_Connection] = set()
        """The open connections, which add and remove themselves."""
        self._server: asyncio.Server | None = None
        """The listening server between `start` and `stop`."""
        self._port = ReusablePort()
        """The port, from the first `start` on."""

    # -- used by tests ----------------------------------------------------------------------------

    def set_quirks(self, **quirks: Unpack[QuirkOptions]) -> None:
        """Change these quirks, from the next request on."""
        self.quirks = make_quirks(self.quirks, **quirks)

    def say(self, count: int = 1, *, step: int = 1) -> int:
        """Add *count* messages with ids *step* apart, and return the last id."""
        for _ in range(count):
            self._add(self.newest + step)
        return self.newest

    def post(self, text: str, **bits: int) -> int:
        """Add one message of the key's user, with these fields in the JSON, and return its id."""
        self._add(id := self.newest + 1, USER, text)
        if bits:
            self.show(id, line(id, text) | {"my": 1} | bits)
        return id

    def show(self, id: int, document: object) -> None:
        """Replace this message by *document* in responses. Adds the message if there is none."""
        if id not in self.ids:
            self._add(id)
        self._documents[id] = document

    def _add(self, id: int, sender: str = "alice", text: str | None = None) -> None:
        if text is None:
            text = f"message {id}"
        self.chat.messages.append(ChatLine(id, sender, "", text, DATE, bot=False))

    @property
    def ids(self) -> list[int]:
        """The ids of all messages in the chat, in order."""
        return [message.id for message in self.chat.messages]

    @property
    def newest(self) -> int:
        """The id of the newest message, hidden or not; 0 without any."""
        last = self.chat.messages[-1].id if self.chat.messages else 0
        return max(last, *self._hidden) if self._hidden else last

    @property
    def mails(self) -> list[StoredMail]:
        """All mails in the mailbox, read or not."""
        return self.mail.inbox

    def deliver(self, *texts: str, sender: str = "alice") -> None:
        """Add one unread mail for each text."""
        for text in texts:
            self.mail.deliver(sender, text)

    def script(self, kind: str, *faults: ScriptedFault) -> None:
        """Apply these faults to the next requests of this *kind*, one to each."""
        self.faults[kind].extend(faults)

    def asked(self, *kinds: str) -> list[RecordedCall]:
        """The requests of these kinds that have arrived."""
        return [request for request in self.requests if request.kind in kinds]

    @property
    def url(self) -> str:
        """The base URL of both services."""
        return f"http://127.0.0.1:{self._port.number}"

    def session(self, **overrides: Any) -> Session:
        """A session for these services, which is not open yet."""
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
        """Listen, on the same port each time."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), sock=self._port.listener()
        )

    async def stop(self) -> None:
        """Refuse new connections, and abort the open ones."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            self._port.reserve()
        for connection in list(self._connections):
            connection.transport.abort()
        await asyncio.sleep(0.001)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    # -- processing of requests -------------------------------------------------------------------

    def receive(self, connection: _Connection, target: str) -> None:
        """Record a request, and process it with its fault, immediately unless that delays it.

        So what a test changes after the request was recorded does not apply to it.
        """
        loop = asyncio.get_running_loop()
        of_peerbet = target.startswith("/api/chat/")
        call = IncomingRequest(
            "peerbet" if of_peerbet else "pythbots", "GET", target, {}, loop.time()
        )
        kind = call.kind.rpartition(".")[2]
        self.requests.append(RecordedCall(kind, call.params, call.at))
        queue = self.faults[kind]
        fault = queue.popleft() if queue else self.default_faults.get(kind, OK)
        if fault.before:
            loop.call_later(fault.before, self._process, connection, kind, call, fault)
        else:
            self._process(connection, kind, call, fault)

    def _process(
        self, connection: _Connection, kind: str, call: IncomingRequest, fault: ScriptedFault
    ) -> None:
        body = fault.body
        if fault.effect:
            document = self._answer(kind, call)
            if fault.hidden:
                self._hide(fault.hidden)
            body = php_json(document, self.quirks) if body is None else body
        loop = asyncio.get_running_loop()
        loop.call_later(fault.after, connection.finish, fault, body or b"")

    def _answer(self, kind: str, call: IncomingRequest) -> object:
        try:
            match kind:
                case "get" | "set":
                    return self._answer_chat(kind, call)
                case "readnew" | "readall":
                    self.mail.register(USER, call.params[self.quirks.personal_key_param])
                    return self._pythbots.answer(call)
                case _:
                    return {"success": True}
        except RejectedError as error:
            return error.document

    def _answer_chat(self, kind: str, call: IncomingRequest) -> object:
        if "key" in call.params:
            self.chat.register(USER, call.params["key"])
        answer = self.chat.answer(call)
        if kind == "set":
            posted = self.chat.messages[-1]
            shown = msgspec.structs.replace(posted, text=self._transform_text(posted.text))
            self.chat.messages[-1] = shown
        elif self._documents:
            page: Any = answer["message_list"]
            answer["message_list"] = [self._documents.get(shown["id"], shown) for shown in page]
        return answer

    def _hide(self, seconds: float) -> None:
        """Take the newest message out of the chat for this long."""
        message = self.chat.messages.pop()
        self._hidden.add(message.id)

        def show() -> None:
            insort(self.chat.messages, message, key=attrgetter("id"))
            self._hidden.remove(message.id)

        asyncio.get_running_loop().call_later(seconds, show)


def line(id: int, text: str | None = None) -> dict[str, object]:
    """The documented JSON of one message of the chat."""
    return {
        "id": id,
        "by": "alice",
        "to": "",
        "msg": f"message {id}" if text is None else text,
        "date": DATE,
        "bot": 0,
        "my": 0,
        "me": 0,
    }


class _Connection(asyncio.Protocol):
    """One connection: reads requests, and sends the responses as their faults specify."""

    transport: asyncio.Transport

    def __init__(self, services: Scripted) -> None:
        self._services = services
        self._received = b""
        """What was received after the last complete request."""

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

    def finish(self, fault: ScriptedFault, body: bytes) -> None:
        """Send the response, unless *fault* ends the request in a different way."""
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
            if fault.end == "cut":
                body = body[: len(body) // 2]
            self.transport.write(head.encode() + body)
        if fault.end != "answer":
            self.transport.close()
