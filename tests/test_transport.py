"""One request is one attempt on the wire, and any bytes are a result or our own error."""

from __future__ import annotations

import asyncio
import gzip
import random
import select
import tracemalloc
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import pytest
from faults import DROPPED_RESPONSES, REPRODUCTIONS, TIMED_OUT, gzip_bomb, steps_of
from helpers import DEEP, examples, now, wait_for_io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_server import (
    CALLS,
    DEFLATE,
    GOOD,
    GZIP,
    READS,
    SINGLE_ATTEMPT,
    Connection,
    RawServer,
    Step,
    answer,
    chunked,
    client_context,
    drop,
    failure,
    flood,
    hang,
    http,
    open_session,
    send,
    server_context,
    unresponsive_port,
)

from pythpeer import (
    FLAG,
    Endpoint,
    HttpStatusError,
    InvalidRequestError,
    OutcomeUnknownError,
    PythpeerError,
    Rate,
    RequestTimeoutError,
    ResponseTooLargeError,
    Retry,
    Session,
    TransportError,
)
from pythpeer.transport import RawResponse
from pythpeer.transport.aiohttp_names import READ_SIZE
from pythpeer.transport.pool import CONNECT_TIMEOUT, KEEPALIVE_TIMEOUT, LIMIT_PER_ENDPOINT

pytestmark = pytest.mark.anyio

MAX_BODY: Final = 4096
SILENT: Final = steps_of(TIMED_OUT)


def custom_endpoint(url: str, **options: Any) -> Endpoint[dict[str, object]]:
    """An endpoint without pacing."""
    return Endpoint("own", f"{url}/own", rate=Rate(0.0), **options)


# -- one attempt ----------------------------------------------------------------------------------


PARTIAL: Final = [name for name in DROPPED_RESPONSES if name not in ("fin", "rst")]
"""The faults with at least one byte of a response."""


@pytest.mark.parametrize("fault", PARTIAL)
async def test_a_read_with_a_byte_of_a_response_is_sent_once(fault: str) -> None:
    """A reused connection that breaks within a response is no reason for a second request."""
    for name in READS:
        async with (
            RawServer(answer(), DROPPED_RESPONSES[fault]) as server,
            open_session(server.url) as session,
        ):
            await CALLS[name].run(session, server.url)
            error = await failure(name, session, server.url)
            await wait_for_io(0.1)
            assert [asked.connection for asked in server.requests] == [1, 1]
        assert isinstance(error, TransportError)
        assert error.sent is True


async def test_a_repeated_attempt_would_be_answered() -> None:
    """A second attempt would reach a service that works again, and still there is none."""
    async with RawServer(drop(), answer()) as server, open_session(server.url) as session:
        await failure("post", session, server.url)
        await wait_for_io(0.1)
        assert len(server.requests) == 1


@pytest.mark.parametrize("name", CALLS)
async def test_a_service_that_closes_before_reading_costs_one_attempt(name: str) -> None:
    """Closing a connection right after it was made is a failed attempt like any other."""
    async with (
        RawServer(drop(reads=False), answer()) as server,
        open_session(server.url) as session,
    ):
        error = await failure(name, session, server.url)
        await wait_for_io(0.1)
        assert server.connection_count == 1
        assert server.requests == []
    assert isinstance(error, TransportError)


# -- connections ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SINGLE_ATTEMPT)
async def test_what_must_not_be_repeated_has_a_separate_connection(name: str) -> None:
    """Writes and destructive reads never share a connection, and their head says so."""
    async with RawServer(answer()) as server, open_session(server.url) as session:
        await CALLS["user"].run(session, server.url)
        for _ in range(3):
            await CALLS[name].run(session, server.url)
            await CALLS["user"].run(session, server.url)
        await wait_for_io(0.1)
        closing = [asked for asked in server.requests if ("Connection", "close") in asked.headers]
        assert [asked.connection for asked in closing] == [2, 3, 4]
        assert [asked.connection for asked in server.requests] == [1, 2, 1, 3, 1, 4, 1]
        assert len(server.open_connections) == 1


async def test_reads_share_a_connection() -> None:
    """One connection serves all reads, of any endpoint."""
    async with RawServer(answer()) as server, open_session(server.url) as session:
        for name in READS * 2:
            await CALLS[name].run(session, server.url)
        assert server.connection_count == 1


async def test_a_response_may_end_its_connection() -> None:
    """With ``Connection: close``, also if the service is slow to close it."""
    steps = answer(headers=[("Connection", "close")]), answer()
    async with RawServer(*steps) as server, open_session(server.url) as session:
        for _ in range(2):
            await CALLS["user"].run(session, server.url)
        assert [request.connection for request in server.requests] == [1, 2]


@pytest.mark.parametrize(("idle", "connections"), [(3.9, 1), (4.1, 2)])
async def test_an_idle_connection_is_kept_for_a_while(idle: float, connections: int) -> None:
    """A connection is closed before the service closes it: Apache does so after 5 seconds."""
    assert KEEPALIVE_TIMEOUT == 4.0
    async with RawServer(answer()) as server, open_session(server.url) as session:
        await CALLS["user"].run(session, server.url)
        await asyncio.sleep(idle)
        assert len(server.open_connections) == 2 - connections
        await CALLS["user"].run(session, server.url)
        assert server.connection_count == connections


async def test_a_connection_closed_by_the_service_is_not_used_again() -> None:
    """A read after the service closed an idle connection takes another, without an error."""
    async with RawServer(answer()) as server, open_session(server.url) as session:
        await CALLS["user"].run(session, server.url)
        server.open_connections[0].close()
        await wait_for_io(0.1)
        await CALLS["user"].run(session, server.url)
        assert [asked.connection for asked in server.requests] == [1, 2]


async def test_a_connection_closed_at_the_last_time_costs_no_second_attempt() -> None:
    """A read on a connection that was just closed fails or takes another; a policy repeats it."""
    async with (
        RawServer(answer()) as server,
        open_session(server.url, retry=Retry(attempts=2)) as session,
    ):
        await CALLS["user"].run(session, server.url)
        server.open_connections[0].close_now()
        await CALLS["user"].run(session, server.url)
        assert [asked.connection for asked in server.requests] == [1, 2]


@pytest.mark.parametrize("name", SINGLE_ATTEMPT)
async def test_what_must_not_be_repeated_never_uses_a_stale_connection(name: str) -> None:
    """A write never fails because of a connection that was closed while it was idle."""
    async with RawServer(answer()) as server, open_session(server.url) as session:
        await CALLS["user"].run(session, server.url)
        await CALLS[name].run(session, server.url)
        for peer in server.open_connections:
            peer.close_now()
        await CALLS[name].run(session, server.url)
        assert [asked.connection for asked in server.requests] == [1, 2, 3]


OTHER: Final = b'{"id":666}'
"""The body of a response that no request has."""

UNSOLICITED: Final = {
    "a second answer": http(200, OTHER),
    "a second answer of chunks": chunked(OTHER),
    "a second answer without a length": http(200, OTHER, length=None),
    "a 408 of keep-alive": http(408, OTHER, [("Connection", "close")]),
    "a 304": http(304, b"", [("ETag", '"666"')], length=None),
    "an interim response": b"HTTP/1.1 100 Continue\r\n\r\n",
    "an interim response, and another": b"HTTP/1.1 103 Early Hints\r\n\r\n" + http(200, OTHER),
    "an upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "a head without its body": http(200, b"", length=10),
    "half a body": http(200, OTHER[:5], length=10),
    "blank lines": b"\r\n\r\n\r\n",
    "blank lines, and an answer": b"\r\n\n" + http(200, OTHER),
    "one byte": b"H",
    "nuls": b"\0" * 100,
    "junk": b"666\r\n",
    "a body alone": OTHER,
    "a megabyte": http(200, b" " * 1_048_576 + OTHER),
    "the last chunk again": b"0\r\n\r\n",
    "an answer of HTTP/2": b"\0\0\x06\x04" + b"\0" * 11,
}
"""Bytes that follow a response, or arrive on an idle connection."""

RESPONSE_FRAMINGS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "length": lambda body: http(200, body),
    "chunks": lambda body: chunked(body[:3], body[3:]),
    "gzip": lambda body: http(200, gzip.compress(body, mtime=0), GZIP),
}
"""How the end of the response before them is found."""

MATRIX: Final = [
    (kind, framing)
    for number, kind in enumerate(UNSOLICITED)
    for index, framing in enumerate(RESPONSE_FRAMINGS)
    if DEEP or index == number % len(RESPONSE_FRAMINGS)
]
"""Each kind with each framing if `DEEP`, otherwise with one of them."""


def numbered(unsolicited: bytes, *, later: float | None, framing: str = "length") -> Step:
    """Answer with the requested id, and send *unsolicited* with it or some time after it."""

    async def run(peer: Connection) -> None:
        id = peer.head.partition(b"user=")[2].partition(b" ")[0]
        data = RESPONSE_FRAMINGS[framing](b'{"id":%s}' % id)
        if later is None:
            await peer.send(data + unsolicited)
            return
        await peer.send(data)
        await asyncio.sleep(later)
        await peer.send(unsolicited)

    return Step(run)


@pytest.mark.parametrize(("unsolicited", "framing"), MATRIX)
async def test_an_unsolicited_response_is_ignored(unsolicited: str, framing: str) -> None:
    """Data that arrives on an idle connection is never treated as the next response."""
    step = numbered(UNSOLICITED[unsolicited], later=0.05, framing=framing)
    async with RawServer(step) as server, open_session(server.url) as session:
        for id in range(1, 4):
            assert (await session.pythbots.user(id)).id == id
            await wait_for_io(0.1)
        assert server.connection_count == 3


@pytest.mark.parametrize("later", [None, 0.0])
@pytest.mark.parametrize(("unsolicited", "framing"), MATRIX)
async def test_data_after_a_response_is_not_the_next_one(
    unsolicited: str, framing: str, later: float | None
) -> None:
    """Data that arrives together with a response neither damages it, nor is the next one."""
    step = numbered(UNSOLICITED[unsolicited], later=later, framing=framing)
    async with RawServer(step) as server, open_session(server.url) as session:
        for id in range(1, 4):
            assert (await session.pythbots.user(id)).id == id
            await wait_for_io(0.1)
        assert len(server.requests) == 3


async def test_an_unsolicited_response_is_ignored_before_the_loop_reads_it() -> None:
    """It is not treated as the response even where the loop has not read it yet."""
    async with (
        RawServer(numbered(b"", later=None)) as server,
        open_session(server.url, retry=Retry(attempts=3)) as session,
    ):
        assert (await session.pythbots.user(1)).id == 1
        await wait_for_io(0.1)
        server.open_connections[0].send_now(UNSOLICITED["a second answer"])
        assert (await session.pythbots.user(2)).id == 2


async def test_a_connection_left_over_after_a_failure_is_closed() -> None:
    """After a response that was not read to its end, the next read uses another connection."""
    steps = (flood(http(200, b"", length=None), b" " * 1000), answer())
    async with (
        RawServer(*steps) as server,
        open_session(server.url, max_body=MAX_BODY) as session,
    ):
        assert isinstance(await failure("user", session, server.url), ResponseTooLargeError)
        await wait_for_io(0.1)
        assert server.open_connections == []
        await CALLS["user"].run(session, server.url)
        assert [asked.connection for asked in server.requests] == [1, 2]


async def test_waiting_for_a_connection_is_not_sending() -> None:
    """Behind as many requests as there are connections, one that times out was never sent."""
    async with RawServer(hang()) as server, open_session(server.url) as session:
        calls = (failure("user", session, server.url) for _ in range(LIMIT_PER_ENDPOINT + 1))
        errors = await asyncio.gather(*calls)
        assert all(isinstance(error, RequestTimeoutError) for error in errors)
        sent = [isinstance(error, TransportError) and error.sent for error in errors]
        assert sent == [True] * LIMIT_PER_ENDPOINT + [False]
        assert len(server.requests) == LIMIT_PER_ENDPOINT


# -- what goes out --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
async def test_a_head_has_exactly_what_it_needs(name: str) -> None:
    """Each header of a request is expected: no cookie, no referer, no other encoding."""
    async with RawServer(answer()) as server, open_session(server.url) as session:
        await CALLS[name].run(session, server.url)
        headers = server.requests[0].headers
    agent = dict(headers)["User-Agent"]
    assert agent.startswith("pythpeer/")
    expected = {
        ("Host", server.url.removeprefix("http://")),
        ("User-Agent", agent),
        ("Accept", "application/json"),
        ("Accept-Encoding", "gzip"),
    }
    if CALLS[name].endpoint.startswith("pythbots."):
        expected.add(("X-API-Key", "api-key"))
    if name in SINGLE_ATTEMPT:
        expected.add(("Connection", "close"))
    assert sorted(headers) == sorted(expected)


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        ("a b", "a%20b"),
        ("a+b", "a%2Bb"),
        ("a&b#c", "a%26b%23c"),
        ("100%", "100%25"),
        ("a%20b", "a%2520b"),
        ("?/:@'!$()*,;=", "%3F%2F%3A%40%27%21%24%28%29%2A%2C%3B%3D"),
        ("\r\n\t\x7f", "%0D%0A%09%7F"),
        ("é\N{GRINNING FACE}\u200d", "%C3%A9%F0%9F%98%80%E2%80%8D"),
        ("Az09-._~", "Az09-._~"),
        ("../..", "..%2F.."),
    ],
)
async def test_a_query_follows_rfc_3986(value: str, wire: str) -> None:
    """All but the unreserved characters are percent-encoded, once; a space is never a plus."""
    async with RawServer(answer()) as server, open_session(server.url) as session:
        await session.call(custom_endpoint(server.url), m=value, flag=FLAG)
        assert server.targets == [f"/own?m={wire}&flag"]


TEXT: Final = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@settings(max_examples=examples(20), suppress_health_check=list(HealthCheck))
@given(texts=st.lists(TEXT, min_size=1, max_size=20))
async def test_any_text_arrives_unchanged(texts: list[str]) -> None:
    """The service decodes exactly the text that was sent."""
    async with RawServer(answer()) as server, open_session(server.url) as session:
        for text in texts:
            await session.call(custom_endpoint(server.url), m=text)
        assert [unquote(target.removeprefix("/own?m=")) for target in server.targets] == texts


@pytest.mark.parametrize("text", ["a\ud800b", "\0", "a\0b"])
async def test_text_that_cannot_be_sent_is_an_error(text: str) -> None:
    """A lone surrogate or a NUL raises an error before a connection is made."""
    async with RawServer(answer()) as server, open_session(server.url) as session:
        with pytest.raises(InvalidRequestError):
            await session.peerbet.post(text)
        assert server.connection_count == 0


@pytest.mark.parametrize(
    ("path", "target"), [("", "/"), ("/", "/"), ("/a/%2e%2e/b//c", "/a/%2e%2e/b//c")]
)
async def test_a_path_is_sent_unchanged(path: str, target: str) -> None:
    """A path is neither collapsed nor encoded again, and without a query there is no ``?``."""
    async with RawServer(answer()) as server, open_session(server.url) as session:
        await session.call(Endpoint("own", server.url + path, rate=Rate(0.0)))
        assert server.targets == [target]


async def test_cookies_are_not_sent_back() -> None:
    """A cookie of the service is ignored."""
    cookies = [("Set-Cookie", "PHPSESSID=abc; Path=/"), ("Set-Cookie", "x=y; Max-Age=9999")]
    async with RawServer(answer(headers=cookies)) as server:
        # By name, because cookies of an IP address are always ignored.
        url = server.url.replace("127.0.0.1", "localhost")
        async with open_session(url) as session:
            for name in [*CALLS, *CALLS]:
                await CALLS[name].run(session, url)
        assert len(server.requests) == 2 * len(CALLS)
        assert not [asked for asked in server.requests if b"cookie" in asked.head.lower()]


async def test_proxy_and_netrc_variables_are_not_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Proxies and passwords of the environment are ignored: a request is sent directly."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with RawServer(answer(b'{"id":666}')) as proxy, RawServer(answer()) as server:
        for variable in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy"):
            monkeypatch.setenv(variable, proxy.url)
            monkeypatch.setenv(variable.upper(), proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with open_session(server.url) as session:
            for name in CALLS:
                await CALLS[name].run(session, server.url)
        assert proxy.connection_count == 0
        assert len(server.requests) == len(CALLS)
        assert not [asked for asked in server.requests if b"authorization" in asked.head.lower()]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    """A redirect raises an error with its status, and no request goes to its target."""
    for name in CALLS:
        async with RawServer(answer()) as other_server:
            for location in (other_server.url + "/there", "/there"):
                step = answer(b"", status, [("Location", location)])
                async with RawServer(step) as server, open_session(server.url) as session:
                    error = await failure(name, session, server.url)
                    await wait_for_io(0.1)
                    assert len(server.requests) == 1
                    assert isinstance(error, HttpStatusError)
                    assert error.status == status
                    assert location not in f"{error} {error!r} {vars(error)}"
            assert other_server.connection_count == 0


# -- what comes back ------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0.05, 5.05, 7.3])
async def test_a_time_limit_is_kept_to_the_fraction(timeout: float) -> None:
    """Limits over five seconds are not rounded up to whole seconds."""
    async with RawServer(hang()) as server, open_session(server.url, timeout=timeout) as session:
        await asyncio.sleep(0.37)
        start = now()
        error = await failure("user", session, server.url)
        assert isinstance(error, RequestTimeoutError)
        assert now() - start == pytest.approx(timeout, abs=1e-3)


@settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
@given(data=st.data())
async def test_any_bytes_are_a_result_or_our_own_error(data: st.DataObject) -> None:
    """Whatever a service sends, a call ends with a result or an error of this library."""
    whole = data.draw(
        st.sampled_from(
            [
                http(200, GOOD),
                http(200, gzip.compress(GOOD), GZIP),
                http(200, zlib.compress(GOOD), DEFLATE),
                chunked(GOOD[:20], GOOD[20:]),
                http(429, GOOD, [("Retry-After", "1")]),
                http(401, b'{"error":"no access"}'),
            ]
        )
    )
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    invalid = whole[:start] + data.draw(st.binary(max_size=30)) + whole[end:]
    async with RawServer(drop(invalid)) as server:
        for name in ("user", "unread_mail", "post"):
            async with open_session(server.url) as session:
                begin = now()
                try:
                    result = await CALLS[name].run(session, server.url)
                except PythpeerError as error:
                    result = error
                assert now() - begin <= 20.0
                assert result is not None


# -- bodies of any size ---------------------------------------------------------------------------

FRAMINGS: Final = {
    "a length": lambda body: http(200, body),
    "chunks": lambda body: chunked(*(body[at : at + 999] for at in range(0, len(body), 999))),
    "gzip": lambda body: http(200, gzip.compress(body, 1), GZIP),
    "gzip in chunks": lambda body: chunked(gzip.compress(body, 1), headers=GZIP),
    "neither": lambda body: http(200, body, length=None),
}


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_body_may_have_exactly_so_many_bytes(framing: str) -> None:
    """A body as long as ``max_body`` is read; one byte more is too much."""
    longest = GOOD.ljust(MAX_BODY)
    steps = [drop(FRAMINGS[framing](body)) for body in (longest, longest + b" ")]
    async with RawServer(*steps) as server, open_session(server.url, max_body=MAX_BODY) as session:
        await CALLS["user"].run(session, server.url)
        await wait_for_io(0.1)
        error = await failure("user", session, server.url)
        assert isinstance(error, ResponseTooLargeError)
        assert error.limit == MAX_BODY
        assert error.endpoint == "pythbots.userinfo"


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_reading_of_a_large_body_pauses_and_continues(framing: str) -> None:
    """It arrives whole, although more of it arrives at a time than may wait to be read."""
    # White space that gzip makes four times smaller, so that what is read at a time is too much.
    body = GOOD + random.Random(1).randbytes(12 * READ_SIZE).translate(b" \t\n\r" * 64)
    async with (
        RawServer(drop(FRAMINGS[framing](body))) as server,
        open_session(server.url, max_body=len(body)) as session,
    ):
        await CALLS["user"].run(session, server.url)


@pytest.mark.parametrize("head", [http(200, b"", length=10**12), http(200, b"", length=None)])
async def test_a_body_without_end_is_not_read_to_its_end(head: bytes) -> None:
    """The rest is not read: the service can send only what the network buffers hold."""
    taken: list[int] = []
    async with (
        RawServer(flood(head, bytes(65536), taken)) as server,
        open_session(server.url) as session,
    ):
        assert isinstance(await failure("user", session, server.url), ResponseTooLargeError)
        await wait_for_io(0.1)
        assert server.open_connections == []
    assert sum(taken) < 32 * 2**20


@pytest.mark.parametrize("name", ["user", "post"])
@pytest.mark.parametrize("framed", [True, False], ids=["length", "chunks"])
async def test_a_gzip_bomb_is_limited(name: str, framed: bool) -> None:
    """A small body that unpacks to a huge one costs little more memory than the limit."""
    body = gzip_bomb(300)
    assert len(body) < 2**20
    data = http(200, body, GZIP) if framed else chunked(body, headers=GZIP)
    async with RawServer(drop(data)) as server, open_session(server.url) as session:
        tracemalloc.start()
        try:
            error = await failure(name, session, server.url)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert isinstance(
        error, OutcomeUnknownError if name in SINGLE_ATTEMPT else ResponseTooLargeError
    )
    assert peak < 12 * 2**20


async def test_a_body_that_unpacks_to_much_is_read_completely() -> None:
    """Although the parser pauses within it."""
    body = b" " * 3 * 2**20 + GOOD
    response = http(200, gzip.compress(body), GZIP)
    async with (
        RawServer(send(response)) as server,
        open_session(server.url, max_body=len(body)) as session,
    ):
        await CALLS["user"].run(session, server.url)
    assert len(server.requests) == 1


# -- no connection --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CALLS)
async def test_a_time_limit_while_connecting_means_nothing_was_sent(name: str) -> None:
    """A time limit that passes before there is a connection sets ``sent`` to ``False``.

    The limit of a roll is never so short: there the one for connecting passes first.
    """
    limit = CONNECT_TIMEOUT if name == "roll" else 1.5
    with unresponsive_port() as url:
        async with open_session(url, timeout=1.5) as session:
            start = now()
            error = await failure(name, session, url)
            assert now() - start == pytest.approx(limit, abs=1e-2)
    assert type(error) is RequestTimeoutError
    assert error.sent is False


# -- TLS ------------------------------------------------------------------------------------------


async def test_a_private_authority_can_be_trusted() -> None:
    """With an ``ssl_context`` that trusts its authority, a service is used like any other."""
    async with RawServer(answer(), tls=server_context()) as server:
        assert server.url.startswith("https://")
        async with open_session(server.url, ssl_context=client_context()) as session:
            for name in CALLS:
                await CALLS[name].run(session, server.url)
        assert len(server.requests) == len(CALLS)
        assert server.connection_count == 1 + len(SINGLE_ATTEMPT)
        assert server.open_connections == []


async def test_a_session_with_tls_closes_its_connections() -> None:
    """Closing right after a write leaves no connection open."""
    async with RawServer(answer(), tls=server_context()) as server:
        session = await open_session(server.url, ssl_context=client_context()).open()
        await CALLS["post"].run(session, server.url)
        start = now()
        await session.aclose()
        assert 0.0 < now() - start < 0.1
        assert server.open_connections == []


@pytest.mark.parametrize(
    "url",
    [
        "http://www.peerbet.org",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "https://user:password@www.peerbet.org",
        "http://evil.example#@localhost",
        "http://evil.example?@localhost",
        "http://127.1",
        "http://2130706433",
        "http://0x7f.1",
        "http://0.0.0.0",
        "http://\N{CIRCLED DIGIT ONE}27.0.0.1",
        "ftp://localhost",
        "https://www.peerbet.org/?a=b",
        "https://www.peerbet.org/#a",
        "https://www.peerbet.org\\@evil.example",
        " https://www.peerbet.org",
        "https://www.peerbet.org\n",
        "https://",
        "",
    ],
)
def test_keys_are_sent_by_https_or_to_this_machine_only(url: str) -> None:
    """Any other address, or one that only looks like these, is an error before any connection."""
    with pytest.raises(InvalidRequestError):
        Session(peerbet_url=url)
    with pytest.raises(InvalidRequestError):
        Session(pythbots_url=url)
    with pytest.raises(InvalidRequestError):
        Endpoint("own", url)


class _Opened:
    """A connection to an address, over which nothing must be sent."""

    protocol = None

    def __init__(self, address: str) -> None:
        self.transport = self
        self._address = address
        self.is_closed = False

    def get_extra_info(self, name: str) -> object:
        return {"peername": (self._address, 80)}[name]

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize("name", ["messages", "post", "send_mail"])
@pytest.mark.parametrize("host", ["localhost", "localhost."])
@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "12.7.0.0"])
async def test_a_name_that_leads_to_another_machine_gets_no_key(
    name: str, host: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver decides where ``localhost`` leads to."""
    opened: list[_Opened] = []

    async def open_there(*_: object) -> _Opened:
        opened.append(_Opened(address))
        return opened[-1]

    monkeypatch.setattr("pythpeer.transport.pool.open_connection", open_there)
    url = f"http://{host}"
    async with open_session(url) as session:
        error = await failure(name, session, url)
    assert isinstance(error, TransportError)
    assert (error.sent, error.untrusted) == (False, True)
    assert "http is for loopback only" in str(error)
    assert [connection.is_closed for connection in opened] == [True]


async def test_a_context_that_stops_checking_is_not_used() -> None:
    """Other code of the program may have the same context, and change it."""
    context = client_context()
    async with RawServer(answer(), tls=server_context()) as server:
        async with open_session(server.url, ssl_context=context) as session:
            await CALLS["post"].run(session, server.url)
            context.check_hostname = False
            error = await failure("post", session, server.url)
            assert isinstance(error, TransportError)
            assert (error.sent, error.untrusted) == (False, True)
            assert "ssl_context was changed" in str(error)
            context.check_hostname = True
            await CALLS["post"].run(session, server.url)
        assert len(server.requests) == 2


# -- cancellation and closing ---------------------------------------------------------------------


@pytest.mark.parametrize("fault", SILENT)
@pytest.mark.parametrize("name", [name for name in CALLS if name != "unread_mail"])
async def test_a_cancelled_request_frees_its_connection(name: str, fault: str) -> None:
    """Cancelled in head or body, a request ends immediately, and its connection is closed."""
    async with RawServer(SILENT[fault]) as server, open_session(server.url) as session:
        tasks = [
            asyncio.ensure_future(CALLS[name].run(session, server.url))
            for _ in range(LIMIT_PER_ENDPOINT)
        ]
        await asyncio.sleep(1.5)
        assert len(server.open_connections) == len(server.requests) == LIMIT_PER_ENDPOINT
        start = now()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, asyncio.CancelledError) for error in ended)
        assert now() == start
        await wait_for_io(0.1)
        assert server.open_connections == []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await CALLS[name].run(session, server.url)
        assert len(server.requests) == LIMIT_PER_ENDPOINT + 1


@pytest.mark.parametrize("name", CALLS)
async def test_closing_the_session_ends_its_requests(name: str) -> None:
    """A request that is under way when its session is closed fails immediately, with our error.

    Closing waits for a destructive read, which has marked mail as read, until its time limit.
    """
    async with RawServer(hang()) as server:
        session = await open_session(server.url, retry=Retry(attempts=3, base_delay=0.0)).open()
        task = asyncio.ensure_future(CALLS[name].run(session, server.url))
        await wait_for_io(0.1)
        start = now()
        await session.aclose()
        with pytest.raises(PythpeerError):
            await task
        assert now() == pytest.approx(20.0 if name == "unread_mail" else start)
        assert len(server.requests) == 1


async def test_a_session_leaves_no_connection_behind() -> None:
    """Closing closes idle connections, and a session opened again makes new ones."""
    async with RawServer(answer()) as server:
        session = open_session(server.url)
        for round in (1, 2):
            async with session:
                await CALLS["user"].run(session, server.url)
                assert server.connection_count == round
            await wait_for_io(0.1)
            assert server.open_connections == []


async def test_a_connection_changed_to_another_protocol_is_closed() -> None:
    """After ``101 Switching Protocols`` no connection is kept, however often it comes."""
    async with (
        RawServer(REPRODUCTIONS["101, no body"].step) as server,
        open_session(server.url) as session,
    ):
        for _ in range(LIMIT_PER_ENDPOINT + 1):
            assert isinstance(await failure("user", session, server.url), HttpStatusError)
            await wait_for_io(0.1)
            assert server.open_connections == []


# -- what is left ---------------------------------------------------------------------------------


def test_a_response_does_not_show_its_body() -> None:
    """A body can be private; the repr has only its size."""
    assert (
        repr(RawResponse(200, {"Set-Cookie": "secret"}, b"secret")) == "<RawResponse 200, 6 bytes>"
    )


async def test_connections_are_reused_where_there_is_no_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows has none: an idle connection is checked by ``select`` there."""
    monkeypatch.delattr(select, "poll")
    async with RawServer(numbered(b"", later=None)) as server, open_session(server.url) as session:
        for id in range(1, 4):
            assert (await session.pythbots.user(id)).id == id
        assert len(server.open_connections) == 1
