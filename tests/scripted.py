"""Both services on one loopback port, with a script of faults: a thin layer on the test kit.

What the services answer is `FakeChat` and `FakePythBots`, with the habits that `FakeServices` has.
Four things are different here:

- The server is a bare protocol without tasks, so that a test can count the client's own. It also
  takes about a third of the CPU time of the kit's server, and most tests of streams and of posts
  use it.
- A fault may also come before the service acts, or hide a message that was posted.
- A message of the chat may be damaged: `Scripted.show`.
- Any key is the one user's, so that programs in other processes may have their own.

Time is the event loop's. What a request is called: ``get``, ``set``, ``readnew``, ``readall``,
``send``, or the last part of another endpoint's name.
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

from pythpeer import Rate, Session
from pythpeer.testing.chat import ChatLine, FakeChat
from pythpeer.testing.directory import Chats, Users
from pythpeer.testing.habits import QuirkOptions, Quirks, make_quirks
from pythpeer.testing.incoming import IncomingRequest
from pythpeer.testing.keys import ApiKeys
from pythpeer.testing.mail import FakeMail, StoredMail
from pythpeer.testing.pythbots import FakePythBots
from pythpeer.testing.replies import RejectedError, php_json

Order = Literal["ascending", "descending", "shuffled"]
Window = Literal["newest", "oldest"]
End = Literal["answer", "drop", "reset", "cut", "hang"]

USER: Final = "scripted-user"
DATE: Final = "2012-12-12 21:12:21"
KEY = "scripted-key"
FAST = Rate(1.0, 1, 0.0)
"""The documented interval, to the millisecond: no guard, so that polls can be counted."""


class ScriptedFault(msgspec.Struct, frozen=True):
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


OK = ScriptedFault()
DROP = ScriptedFault(end="drop")
RESET = ScriptedFault(end="reset")
DROP_UNSEEN = ScriptedFault(effect=False, end="drop")
CUT = ScriptedFault(end="cut")
HANG = ScriptedFault(end="hang")
GARBAGE = ScriptedFault(body=b'[{"id": 1, "message"')
EMPTY = ScriptedFault(body=b"")
HTML = ScriptedFault(body=b"<!DOCTYPE html><html><body>[]</body></html>")
ERROR_500 = ScriptedFault(status=500, body=b"<html>Internal Server Error</html>")
ERROR_503 = ScriptedFault(effect=False, status=503, body=b"")
TOO_MANY = ScriptedFault(effect=False, status=429, body=b"")
REFUSED = ScriptedFault(effect=False, body=b'{"error": "come back later"}')
DENIED = ScriptedFault(effect=False, body=b'{"error": "no access"}')
NOT_FOUND = ScriptedFault(effect=False, status=404, body=b"")


class RecordedCall(msgspec.Struct, frozen=True):
    """One request as it came in."""

    kind: str
    params: Mapping[str, str]
    at: float


class Scripted:
    """The two services while ``async with`` lasts, with habits as `FakeServices` takes them.

    ``shown_as`` is what becomes of a posted text. Mails have no date and no sender's id, so that
    without ids those of one sender and text are alike.
    """

    def __init__(
        self, *, shown_as: Callable[[str], str] = str, **habits: Unpack[QuirkOptions]
    ) -> None:
        self._transform_text = shown_as
        self.quirks = make_quirks(Quirks(names={"date": None, "from_id": None}), **habits)
        users, chance = Users(), random.Random(7)
        self.chat = FakeChat(quirks=lambda: self.quirks, date=lambda: DATE, rng=chance)
        self.mail = FakeMail(
            users, users.ensure(USER), quirks=lambda: self.quirks, date=lambda: DATE, rng=chance
        )
        self._pythbots = FakePythBots(
            users, Chats(users), self.mail, ApiKeys(), lambda: self.quirks
        )
        self.requests: list[RecordedCall] = []
        self.faults: defaultdict[str, deque[ScriptedFault]] = defaultdict(deque)
        self.default_faults: dict[str, ScriptedFault] = {}
        """Faults that happen every time, once `faults` are used up."""
        self._documents: dict[int, object] = {}
        self._hidden: set[int] = set()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._port = 0

    # -- what a test does -------------------------------------------------------------------------

    def set_quirks(self, **habits: Unpack[QuirkOptions]) -> None:
        """Change habits, from the next request on."""
        self.quirks = make_quirks(self.quirks, **habits)

    def say(self, many: int = 1, *, step: int = 1) -> int:
        """Add *many* messages, ids *step* apart, and return the last id."""
        for _ in range(many):
            self._add(self.newest + step)
        return self.newest

    def post(self, text: str, **bits: int) -> int:
        """Add one message of the key's user, its bits as given, and return its id."""
        self._add(id := self.newest + 1, USER, text)
        if bits:
            self.show(id, line(id, text) | {"my": 1} | bits)
        return id

    def show(self, id: int, document: object) -> None:
        """Show *document* in the place of this message, which is added if there is none."""
        if id not in self.ids:
            self._add(id)
        self._documents[id] = document

    def _add(self, id: int, sender: str = "alice", text: str | None = None) -> None:
        words = f"message {id}" if text is None else text
        self.chat.messages.append(ChatLine(id, sender, "", words, DATE, bot=False))

    @property
    def ids(self) -> list[int]:
        """The ids of all messages that are shown, in order."""
        return [message.id for message in self.chat.messages]

    @property
    def newest(self) -> int:
        """The last message's id, shown or not, 0 without any."""
        last = self.chat.messages[-1].id if self.chat.messages else 0
        return max(last, *self._hidden) if self._hidden else last

    @property
    def mails(self) -> list[StoredMail]:
        """All mail in the box."""
        return self.mail.inbox

    def deliver(self, *texts: str, sender: str = "alice") -> None:
        """Put unread mail into the box."""
        for text in texts:
            self.mail.deliver(sender, text)

    def script(self, kind: str, *faults: ScriptedFault) -> None:
        """Let the next requests of this *kind* meet these faults, one each."""
        self.faults[kind].extend(faults)

    def asked(self, *kinds: str) -> list[RecordedCall]:
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
        loop = asyncio.get_running_loop()
        of_peerbet = target.startswith("/api/chat/")
        call = IncomingRequest(
            "peerbet" if of_peerbet else "pythbots", "GET", target, {}, loop.time()
        )
        kind = call.kind.rpartition(".")[2]
        self.requests.append(RecordedCall(kind, call.params, call.at))
        queue = self.faults[kind]
        fault = queue.popleft() if queue else self.default_faults.get(kind, OK)
        loop.call_later(fault.before, self._act, connection, kind, call, fault)

    def _act(self, connection: _Connection, kind: str, call: IncomingRequest, fault: ScriptedFault) -> None:
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
        except RejectedError as refusal:
            return refusal.document

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
            answer["message_list"] = [self._documents.get(each["id"], each) for each in page]
        return answer

    def _hide(self, seconds: float) -> None:
        """Take the last message out of the chat for so long."""
        message = self.chat.messages.pop()
        self._hidden.add(message.id)

        def show() -> None:
            insort(self.chat.messages, message, key=attrgetter("id"))
            self._hidden.remove(message.id)

        asyncio.get_running_loop().call_later(seconds, show)


def line(id: int, text: str | None = None) -> dict[str, object]:
    """One message of the chat as documented."""
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

    def finish(self, fault: ScriptedFault, body: bytes) -> None:
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
