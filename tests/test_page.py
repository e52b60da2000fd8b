"""The page of ``pythpeer serve`` over HTTP: its events, its actions, and what it rejects."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import aiohttp
import pytest
from fake_client import CHAT, MAIL, SET, Client, add_messages, connect
from helpers import wait_until

from pythpeer import Session
from pythpeer.testing import FakeServices, Fault
from pythpeer.testing.web import Notice, Page
from pythpeer.testing.web import server as page_server
from pythpeer.testing.web.fault_panel import KINDS, TARGETS

pytestmark = pytest.mark.anyio


# -- as the page's script asks --------------------------------------------------------------------


class Tab:
    """What one page receives and requests."""

    def __init__(self, page: Page, http: aiohttp.ClientSession) -> None:
        self.page = page
        self.http = http
        self.origin = page.url.removesuffix("/")

    async def post_action(
        self, action: str, content: object = None, **headers: str
    ) -> tuple[int, Any]:
        """Return the status and the document of an action."""
        whole = {"Origin": self.origin, "Content-Type": "application/json", **headers}
        body = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        url = f"{self.page.url}api/{action}"
        async with self.http.post(url, data=body, headers=whole) as response:
            return response.status, json.loads(await response.read() or b"null")

    async def status(self, path: str = "", method: str = "GET", **headers: str) -> int:
        async with self.http.request(method, self.page.url + path, headers=headers) as response:
            return response.status


class Listener:
    """The events, read one by one; ``now`` is the latest content of each section."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.now: dict[str, Any] = {}
        self.lines: list[dict[str, Any]] = []

    async def next_event(self) -> str | None:
        """Return the name of the next event; ``None`` at the end."""
        name = None
        while line := (await self._response.content.readline()).decode().rstrip("\n"):
            kind, _, rest = line.partition(": ")
            if kind == "event":
                name = rest
            elif kind == "data":
                assert name is not None
                self.now[name] = json.loads(rest)
                if name == "chat":
                    self.lines += self.now["chat"]
            elif kind == "retry":
                assert int(rest) > 0
                name = "retry"
            else:
                name = "beat"
        return name

    async def until(self, name: str) -> Any:
        """Read events until one of this section, and return its content."""
        while await self.next_event() != name:
            assert not self._response.content.at_eof(), f"no {name} came"
        return self.now[name]


@pytest.fixture
async def notices() -> list[Notice]:
    return []


@pytest.fixture
async def page(fake: FakeServices, notices: list[Notice]) -> AsyncIterator[Page]:
    async with Page(fake, on_notice=notices.append) as page:
        yield page


@pytest.fixture
async def tab(page: Page) -> AsyncIterator[Tab]:
    async with connect() as http:
        yield Tab(page, http)


@pytest.fixture
async def listener(tab: Tab) -> AsyncIterator[Listener]:
    """A listener that has received the first event of each section."""
    async with tab.http.get(f"{tab.page.url}api/events") as response:
        listener = Listener(response)
        await listener.until("requests")
        yield listener


# -- what it tells --------------------------------------------------------------------------------


async def test_the_first_event_is_all_that_a_bot_requires(
    fake: FakeServices, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its environment configures a session, with keys that are valid for this fake."""
    hello = listener.now["hello"]
    assert hello["bot"] == fake.username
    assert hello["max_text"] == 250
    for name, value in hello["environment"].items():
        monkeypatch.setenv(name, value)
    async with Session.from_env() as session:
        assert await session.peerbet.post("here I am") == 1
        assert await session.pythbots.unread_mail() == ()
    assert fake.violations == []


async def test_pages_receive_each_message(fake: FakeServices, listener: Listener) -> None:
    """Of every sender, with its labels, once each."""
    fake.chat.say("alice", "hello")
    await listener.until("chat")
    fake.chat.say("bob", "psst", to="pythpeer")
    fake.chat.say("robot", "beep", bot=True)
    await listener.until("chat")
    assert [(line["id"], line["sender"], line["to"], line["bot"]) for line in listener.lines] == [
        (1, "alice", "", False),
        (2, "bob", "pythpeer", False),
        (3, "robot", "", True),
    ]


async def test_a_page_that_connects_later_begins_with_the_latest(
    fake: FakeServices, tab: Tab
) -> None:
    """It receives 300 messages at most, and the present state of the rest."""
    add_messages(fake, 400)
    fake.mail.deliver("bob", "hello")
    async with tab.http.get(f"{tab.page.url}api/events") as response:
        listener = Listener(response)
        await listener.until("chat")
    assert [line["id"] for line in listener.lines] == list(range(101, 401))
    assert listener.now["left_out"] == 100
    assert listener.now["mail"]["unread"] == 1
    assert {user["username"] for user in listener.now["users"]} >= {"tiro", "alice", "bob"}


async def test_every_page_receives_everything(
    fake: FakeServices, tab: Tab, listener: Listener
) -> None:
    """What is posted on one is shown on the other."""
    async with tab.http.get(f"{tab.page.url}api/events") as response:
        other = Listener(response)
        await other.until("requests")
        await tab.post_action("say", {"sender": "guest", "text": "both?"})
        for tab_ in (listener, other):
            await tab_.until("chat")
            assert [line["text"] for line in tab_.lines] == ["both?"]


async def test_mail_is_shown_as_read_once_it_was_fetched(
    client: Client, tab: Tab, listener: Listener
) -> None:
    """Delivered by the page, fetched by a bot, and replied to by it."""
    assert await tab.post_action("mail", {"sender": "guest", "text": "hello"}) == (200, {"id": 1})
    mail = await listener.until("mail")
    assert (mail["unread"], mail["inbox"][0]["read"]) == (1, False)
    await client.get(f"{MAIL}&readnew")
    mail = await listener.until("mail")
    assert (mail["unread"], mail["inbox"][0]["read"]) == (0, True)
    await client.get(f"{MAIL}&user=guest&message=thanks")
    assert (await listener.until("mail"))["sent"] == [["guest", "thanks"]]


async def test_requests_are_counted_and_show_no_key(client: Client, listener: Listener) -> None:
    """The number of requests of each endpoint, and the latest first."""
    await client.get(SET + "&msg=hi")
    await listener.until("requests")
    await client.get(f"{CHAT}get&mid=1")
    requests = await listener.until("requests")
    assert requests["counts"] == {"peerbet.chat.set": 1, "peerbet.chat.get": 1}
    assert [request["target"] for request in requests["latest"]] == [
        "/api/chat/?action=get&mid=1",
        "/api/chat/?action=set&key=***&msg=hi",
    ]


async def test_a_lost_connection_is_detected(tab: Tab) -> None:
    """Without events, a comment is sent from time to time."""
    async with tab.http.get(f"{tab.page.url}api/events") as response:
        listener = Listener(response)
        while await listener.next_event() != "beat":
            assert not response.content.at_eof()


# -- what is to be noticed ------------------------------------------------------------------------


async def test_a_broken_rule_is_a_notice_with_its_time(notices: list[Notice]) -> None:
    """On the page, and to the listener of the server."""
    async with FakeServices() as fake, Page(fake, on_notice=notices.append) as page, connect() as h:
        tab, client = Tab(page, h), Client(fake, h)
        for _ in range(2):
            await client.get(f"{CHAT}get")
        async with h.get(f"{page.url}api/events") as response:
            shown = await Listener(response).until("notices")
            (notice,) = shown["latest"]
            assert (notice["kind"], notice["rule"]) == ("violation", "pace")
            assert notice["date"] == fake.date
            assert shown["counts"] == {"violation": 1}
            assert [violation.text for violation in notices] == [notice["text"]]
        fake.violations.clear()
        await client.get(f"{CHAT}get")
        assert len(notices) == 2
        await tab.post_action("forget")
        async with h.get(f"{page.url}api/events") as response:
            assert await Listener(response).until("notices") == {"counts": {}, "latest": []}


@pytest.mark.parametrize(
    ("query", "missed"),
    [("&mid=1", 49), ("&mid=1&last=100", 249), ("&mid=60", 0), ("", 0), ("&mid=0", 0)],
)
async def test_a_gap_is_a_notice(
    fake: FakeServices,
    client: Client,
    page: Page,
    notices: list[Notice],
    query: str,
    missed: int,
) -> None:
    """Public messages after the last id that did not fit into the response."""
    add_messages(fake, 1 if "mid=1" in query else 60)
    fake.chat.say("alice", "psst", to="bob")
    await client.get(f"{CHAT}get")
    add_messages(fake, 351 - len(fake.chat.messages))
    fake.chat.say("alice", "psst", to="bob")
    for _ in range(2):  # the second repeats it, as after a lost response
        notices.clear()
        await client.get(f"{CHAT}get{query}")
    assert [notice.text.split()[0] for notice in notices] == ([f"{missed}"] if missed else [])
    fake.set_quirks(window="oldest")
    await client.get(f"{CHAT}get{query}")
    assert len(notices) == bool(missed)


async def test_only_a_reader_that_continues_has_a_gap(
    fake: FakeServices, client: Client, page: Page, notices: list[Notice]
) -> None:
    """A first read after an id is none, nor are the requests of the doctor next to a bot."""
    add_messages(fake, 350)
    await client.get(f"{CHAT}get&mid=10&last=10")
    position = fake.chat.newest_id
    for _ in range(20):  # a bot that polls each message
        await client.get(f"{CHAT}get&mid={position}&last=300")
        position = fake.chat.newest_id
        add_messages(fake, 1)
    await client.get(f"{CHAT}get&last=300")
    await client.get(f"{CHAT}get&mid={fake.chat.newest_id}&last=300")
    await client.get(f"{CHAT}get&mid={fake.chat.newest_id - 15}&last=10")
    assert notices == []
    add_messages(fake, 301)
    await client.get(f"{CHAT}get&mid={position}&last=300")
    assert [notice.text.split()[0] for notice in notices] == ["2"]


async def test_a_bot_that_is_ahead_is_a_notice(
    fake: FakeServices, client: Client, page: Page, notices: list[Notice]
) -> None:
    """Once for each position over the newest id; a position at it is none."""
    add_messages(fake, 3)
    for mid in (3, 403, 403, 2, 403):
        await client.get(f"{CHAT}get&mid={mid}")
    assert [notice.kind for notice in notices] == ["ahead", "ahead"]
    assert notices[0].text.startswith("it asks for what comes after 403; the newest here is 3: ")
    fake.chat.skip_to(1000)
    await client.get(f"{CHAT}get&mid=999")
    assert len(notices) == 2


async def test_a_bot_that_ends_is_noticed_immediately(
    fake: FakeServices, page: Page, listener: Listener
) -> None:
    """When its last kept connection is closed; not by a fault of the service."""
    disconnects: list[float] = []
    unsubscribe = fake.subscribe_disconnects(lambda: disconnects.append(fake.clock()))
    async with fake.session() as session:
        await session.peerbet.messages()
        fake.faults.add("peerbet.chat.get", Fault.drop())
        await session.peerbet.messages()
        await session.pythbots.user("tiro")
        assert disconnects == []
    closed_at = fake.clock()
    presence = await listener.until("presence")
    assert closed_at - 1.0 <= presence["left_at"] <= fake.clock()
    assert disconnects == [presence["left_at"]]
    unsubscribe()
    async with fake.session() as session:
        await session.peerbet.messages()
    assert len(disconnects) == 1


async def test_a_flood_leaves_a_gap(
    client: Client, tab: Tab, listener: Listener, notices: list[Notice]
) -> None:
    """The button makes more messages than a response can hold."""
    await client.get(SET + "&msg=hi")
    await client.get(f"{CHAT}get")
    await tab.post_action("flood")
    await client.get(f"{CHAT}get&mid=1")
    assert [(notice.kind, notice.endpoint) for notice in notices] == [("gap", "peerbet.chat.get")]
    await listener.until("notices")
    assert listener.now["notices"]["latest"][0]["rule"] == "gap"


# -- what it does ---------------------------------------------------------------------------------


async def test_messages_reach_the_chat_unchanged(fake: FakeServices, tab: Tab) -> None:
    """Markup, bidi, emoji; to everyone or to the bot only."""
    text = "<script>alert('1')</script> \u202e 👩‍👩‍👧 & more"
    assert await tab.post_action("say", {"sender": " guest ", "text": text}) == (200, {"id": 1})
    await tab.post_action("say", {"sender": "guest", "text": "psst", "to": "pythpeer", "bot": True})
    assert [(line.sender, line.text, line.to, line.bot) for line in fake.chat.messages] == [
        ("guest", text, "", False),
        ("guest", "psst", "pythpeer", True),
    ]


@pytest.mark.parametrize(
    ("action", "content"),
    [
        ("say", {"sender": "guest", "text": ""}),
        ("say", {"sender": "guest", "text": "x" * 251}),
        ("say", {"sender": " ", "text": "hello"}),
        ("say", {"sender": "x" * 41, "text": "hello"}),
        ("say", {"sender": "guest"}),
        ("say", {"sender": "guest", "text": "hello", "more": 1}),
        ("say", ["guest", "hello"]),
        ("say", b'{"sender": "guest", "text": "hello"'),
        ("say", b'{"sender": "guest", "text": "\xff"}'),
        ("say", b'{"sender": "guest", "text": "\\ud83d"}'),
        ("say", b"[" * 16_000),
        ("mail", {"sender": "guest", "text": ""}),
        ("mail", {"sender": "", "text": "hello"}),
        ("users", {"username": ""}),
        ("faults", {"target": "peerbet", "kind": "worse"}),
        ("faults", {"target": "everything", "kind": "slow"}),
        ("flood", {"messages": 10**9}),
    ],
)
async def test_invalid_actions_are_errors(
    fake: FakeServices, tab: Tab, action: str, content: object
) -> None:
    """The error has a text, and nothing is changed."""
    users = list(fake.users)
    status, answer = await tab.post_action(action, content)
    assert status == 400
    assert answer.keys() == {"error"}
    assert answer["error"]
    assert (fake.chat.messages, fake.mail.inbox, fake.faults.constant) == ([], [], {})
    assert list(fake.users) == users


@pytest.mark.parametrize(("action", "limit"), [("say", 250), ("mail", 2000)])
async def test_a_text_too_long_is_named_in_characters(tab: Tab, action: str, limit: int) -> None:
    """As the service counts them."""
    body = {"sender": "guest", "text": "é" * (limit + 10)}
    assert await tab.post_action(action, body) == (
        400,
        {"error": f"10 characters too many: at most {limit} are possible"},
    )


async def test_large_bodies_are_not_read(fake: FakeServices, tab: Tab) -> None:
    """Whatever the body contains."""
    status, _ = await tab.post_action(
        "say", b'{"sender": "guest", "text": "hello"}' + b" " * 20_000
    )
    assert status == 413
    assert fake.chat.messages == []


async def test_users_are_added_and_changed(
    fake: FakeServices, tab: Tab, listener: Listener
) -> None:
    """By their name; a look-up returns the new fields."""
    assert (await tab.post_action("users", {"username": "zoe", "online": True}))[0] == 200
    users = await listener.until("users")
    assert [user["online"] for user in users if user["username"] == "zoe"] == [True]
    async with fake.session() as session:
        assert (await session.pythbots.user("zoe")).rank == "User"
        await tab.post_action("users", {"username": "zoe", "rank": "Owner"})
        user = await session.pythbots.user("zoe")
    assert (user.rank, user.online) == ("Owner", False)
    assert sum(user["username"] == "zoe" for user in await listener.until("users")) == 1


# -- trouble --------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [target for target in TARGETS if "." in target])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "normal"])
async def test_each_kind_of_fault_can_be_set_and_cleared(
    fake: FakeServices, tab: Tab, listener: Listener, target: str, kind: str
) -> None:
    """For each target separately: it has the fault, and no other one."""
    assert (await tab.post_action("faults", {"target": target, "kind": kind}))[0] == 200
    assert await listener.until("faults") == {target: kind}
    assert list(fake.faults.constant) == [target]
    await tab.post_action("faults", {"target": target, "kind": "normal"})
    assert await listener.until("faults") == {}
    assert fake.faults.constant == {}


@pytest.mark.parametrize(
    ("kind", "status", "seconds"), [("slow", 200, 3.0), ("error", 503, 0.0), ("limited", 429, 0.0)]
)
async def test_faults_have_their_effect(
    fake: FakeServices, client: Client, tab: Tab, kind: str, status: int, seconds: float
) -> None:
    """Slow responses are delayed, error pages have their status."""
    await tab.post_action("faults", {"target": "peerbet", "kind": kind})
    before = fake.clock()
    assert await client.status(f"{CHAT}get") == status
    assert seconds <= fake.clock() - before < seconds + 0.5


async def test_garbage_is_not_json_and_a_lost_response_has_its_effect(
    fake: FakeServices, client: Client, tab: Tab
) -> None:
    """A post whose response is lost is in the chat; one that cannot connect is not."""
    await tab.post_action("faults", {"target": "peerbet.chat.get", "kind": "garbage"})
    with pytest.raises(ValueError, match="truncated"):
        await client.get(f"{CHAT}get")
    for kind, done in (("lost", ["hi"]), ("down", ["hi"])):
        await tab.post_action("faults", {"target": "peerbet.chat.set", "kind": kind})
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await client.get(SET + "&msg=hi")
        # aiohttp repeats a GET by itself, so it may be there twice.
        assert sorted({line.text for line in fake.chat.messages}) == done
    assert len(fake.chat.messages) <= 2


async def test_a_service_that_is_down_refuses_and_comes_back(
    fake: FakeServices, client: Client, tab: Tab, listener: Listener
) -> None:
    """It alone refuses connections; afterwards it is on the same port."""
    url = fake.peerbet_url
    for _ in range(2):  # the second time it is down already
        await tab.post_action("faults", {"target": "peerbet", "kind": "down"})
    assert await listener.until("faults") == {"peerbet": "down"}
    with pytest.raises(aiohttp.ClientConnectorError):
        await client.status(f"{CHAT}get")
    assert await client.status("/api/userinfo.php?user=tiro") == 200
    await tab.post_action("faults", {"target": "peerbet", "kind": "error"})
    assert await listener.until("faults") == {"peerbet": "error"}
    assert await client.status(f"{CHAT}get") == 503
    await tab.post_action("normal")
    assert await listener.until("faults") == {}
    assert await client.status(f"{CHAT}get") == 200
    assert fake.peerbet_url == url


async def test_a_service_whose_port_was_taken_stays_down(
    fake: FakeServices, client: Client, tab: Tab, listener: Listener
) -> None:
    """The error names the port, and once that is free the outage can be ended."""
    await tab.post_action("faults", {"target": "peerbet", "kind": "down"})
    port = int(fake.peerbet_url.rpartition(":")[2])
    reserved = fake._servers["peerbet"]._reserved
    assert reserved is not None
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # gives up the reservation
    async with FakeServices(peerbet_port=port):
        status, answer = await tab.post_action("normal")
        assert status == 503
        assert f":{port}:" in answer["error"]
    assert await listener.until("faults") == {"peerbet": "down"}
    assert await tab.post_action("normal") == (200, {})
    assert await client.status(f"{CHAT}get") == 200


async def test_all_faults_can_be_cleared(fake: FakeServices, tab: Tab) -> None:
    """For faults set by other means, too; one that is not a kind of the page is shown as such."""
    fake.faults.always("pythbots.mail", Fault.hang())
    await tab.post_action("faults", {"target": "pythbots", "kind": "down"})
    await tab.post_action("faults", {"target": "peerbet.chat.set", "kind": "slow"})
    async with tab.http.get(f"{tab.page.url}api/events") as response:
        assert await Listener(response).until("faults") == {
            "pythbots": "down",
            "pythbots.mail": "other",
            "peerbet.chat.set": "slow",
        }
    assert await tab.post_action("normal") == (200, {})
    assert fake.faults.constant == {}


# -- what it refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "https://127.0.0.1"},
        {"Host": "evil.example"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": ""},
    ],
    ids=str,
)
async def test_actions_of_other_pages_are_rejected(
    fake: FakeServices, tab: Tab, headers: dict[str, str]
) -> None:
    """Neither from another site, nor under a host name that resolves to this machine."""
    status, answer = await tab.post_action("say", {"sender": "guest", "text": "hello"}, **headers)
    assert status == 403
    assert "this machine" in answer["error"]
    assert fake.chat.messages == []


async def test_another_port_is_another_page(fake: FakeServices, tab: Tab) -> None:
    """Other servers on this machine have other pages."""
    content = {"sender": "guest", "text": "hello"}
    for origin in (fake.peerbet_url, fake.pythbots_url, "http://localhost"):
        assert (await tab.post_action("say", content, Origin=origin))[0] == 403
    assert fake.chat.messages == []


async def test_a_post_without_an_origin_is_rejected(fake: FakeServices, tab: Tab) -> None:
    """Browsers send one with every POST."""
    async with tab.http.post(
        f"{tab.page.url}api/say", json={"sender": "guest", "text": "hello"}
    ) as response:
        assert response.status == 403
    assert fake.chat.messages == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
async def test_a_post_of_a_form_is_rejected(fake: FakeServices, tab: Tab, kind: str) -> None:
    """What a browser sends without permission is not JSON."""
    content = {"sender": "guest", "text": "hello"}
    assert (await tab.post_action("say", content, **{"Content-Type": kind}))[0] == 400
    assert fake.chat.messages == []


async def test_it_accepts_both_names_of_this_machine(fake: FakeServices, tab: Tab) -> None:
    """As 127.0.0.1 and as localhost, each with its own origin."""
    host = tab.origin.removeprefix("http://").replace("127.0.0.1", "localhost")
    content = {"sender": "guest", "text": "hello"}
    assert (await tab.post_action("say", content, Host=host, Origin=f"http://{host}"))[0] == 200
    assert (await tab.post_action("say", content, Host=host))[0] == 403
    assert len(fake.chat.messages) == 1


async def test_other_pages_cannot_read_the_events(tab: Tab) -> None:
    """They may link to the page, but not read its events."""
    assert await tab.status(**{"Sec-Fetch-Site": "cross-site"}) == 200
    assert await tab.status("api/events", **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert await tab.status("api/events", **{"Sec-Fetch-Site": "same-site"}) == 403
    assert await tab.status("api/events", Origin="http://evil.example") == 403
    assert await tab.status("api/events", Host="evil.example") == 403
    assert await tab.status(Host="evil.example") == 403


async def test_the_number_of_pages_that_receive_events_is_limited(
    page: Page, tab: Tab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more is rejected, until another one is closed."""
    monkeypatch.setattr(page_server, "MAX_READERS", 3)
    async with contextlib.AsyncExitStack() as stack:
        responses = [
            await stack.enter_async_context(tab.http.get(f"{page.url}api/events"))
            for _ in range(page_server.MAX_READERS)
        ]
        assert {response.status for response in responses} == {200}
        assert await tab.status("api/events") == 503
        responses[0].close()

        async def is_free() -> bool:
            return await tab.status("api/events") == 200

        await wait_until(is_free)


async def test_a_malformed_request_is_not_logged(
    page: Page, caplog: pytest.LogCaptureFixture
) -> None:
    """Its target may contain a key."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(page.url[17:-1]))
    writer.write(b"GET /?key=my-key HTTP/1.1\r\nHost: 127.0.0.1\r\nbroken\r\n\r\n")
    assert b" 400 " in await reader.readline()
    writer.close()
    assert "my-key" not in caplog.text
    assert caplog.records == []


@pytest.mark.parametrize("path", ["", "page.js", "api/events", "nowhere"])
async def test_every_response_has_a_strict_policy(tab: Tab, path: str) -> None:
    """Only the page's files may run, load or frame, and nothing is cached."""
    async with tab.http.get(tab.page.url + path) as response:
        headers = response.headers
    policy = headers["Content-Security-Policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert not any("unsafe" in rule or "http" in rule or "*" in rule for rule in policy)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers


# -- its files ------------------------------------------------------------------------------------


async def test_there_are_four_files_only(tab: Tab) -> None:
    """Each with its type; no other path exists."""
    for path, (name, kind) in page_server.FILES.items():
        async with tab.http.get(tab.page.url + path.lstrip("/")) as response:
            assert (response.status, response.content_type) == (200, kind)
            shipped = files("pythpeer.testing.web").joinpath("static", name)
            assert await response.read() == shipped.read_bytes()
    for path in ("index.html", "../server.py", "%2e%2e/server.py", "..%2fserver.py", "static", "a"):
        assert await tab.status(path) == 404
    assert await tab.status("api/say") == 404
    assert await tab.status(method="PUT", Origin=tab.origin) == 405


def test_the_page_requires_no_other_host() -> None:
    """No URL of another host, no script or style in the markup, a label for each field."""
    home = files("pythpeer.testing.web").joinpath("static")
    texts = {name: home.joinpath(name).read_text("utf-8") for name, _ in page_server.FILES.values()}
    for name, text in texts.items():
        addresses = re.findall(r"""//[^\s"'`]+""", text)
        assert set(addresses) <= {"//www.w3.org/2000/svg"}, name
    assert "innerHTML" not in texts["page.js"]

    class Reader(HTMLParser):
        labels: frozenset[str] = frozenset()
        inside = 0

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            given = dict(attrs)
            assert not any(name == "style" or name.startswith("on") for name in given)
            if tag == "label":
                self.inside += 1
                self.labels |= {given.get("for") or ""}
            elif tag in ("input", "select", "textarea"):
                assert self.inside or given["id"] in self.labels
            elif tag in ("script", "style"):
                assert tag == "script"
                assert given["src"] == "/page.js"

        def handle_endtag(self, tag: str) -> None:
            self.inside -= tag == "label"

    Reader().feed(texts["index.html"])


# -- its life -------------------------------------------------------------------------------------


async def test_a_port_can_be_chosen_and_taken(fake: FakeServices, page: Page) -> None:
    """A port in use is an error that names it, leaves nothing open, and can be retried."""
    port = int(page.url.rstrip("/").rpartition(":")[2])
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: "):
        async with Page(fake, port=port):
            pass
    await page.__aexit__(None, None, None)
    async with Page(fake, port=port) as again:
        assert again.url == page.url


async def test_it_closes_immediately_with_pages_open(fake: FakeServices) -> None:
    """The events of every page end, and the fake is unchanged."""
    async with (
        connect() as http,
        Page(fake) as page,
        http.get(f"{page.url}api/events") as response,
    ):
        listener = Listener(response)
        await listener.until("requests")
        before = asyncio.get_running_loop().time()
        await page.__aexit__(None, None, None)
        assert asyncio.get_running_loop().time() - before < 0.5
        assert await listener.next_event() is None
        assert response.content.at_eof()
    fake.chat.say("alice", "anyone?")
    assert not fake._listeners
    assert len(fake.chat._listeners) == len(fake.mail._listeners) == 1  # the people's


async def test_another_server_has_another_instance_id(fake: FakeServices, tab: Tab) -> None:
    """A page that connects to another server discards its contents."""
    lives = set()
    for _ in range(2):
        async with Page(fake) as page, tab.http.get(f"{page.url}api/events") as response:
            lives.add((await Listener(response).until("hello"))["instance_id"])
    assert len(lives) == 2


async def test_half_a_character_does_not_end_the_events(
    fake: FakeServices, listener: Listener
) -> None:
    """Text without a UTF-8 encoding is still sent."""
    fake.chat.say("alice", "half \ud83d a pair")
    await listener.until("chat")
    assert listener.lines[0]["text"] == "half \ud83d a pair"
