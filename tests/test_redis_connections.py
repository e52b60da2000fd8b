"""Connections to Redis: dead ones, servers that are not what they should be, and the password."""

from __future__ import annotations

import asyncio
import re
import ssl
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
import pytest
import redis_server
import trustme
from fork_server import HANG_TIMEOUT
from helpers import REAL, now, wait_until
from redis_server import CANARY, FaultyRedis

from pythpeer import Rate, StoreError, Stream
from pythpeer.stores import RedisStore, Topic
from pythpeer.stores.redis import scripts as redis_scripts
from pythpeer.stores.redis.address import Address
from pythpeer.testing import DEFAULT_RATES, FakeServices

pytestmark = [pytest.mark.anyio, pytest.mark.processes]


class Item(msgspec.Struct, frozen=True):
    id: int


CHAT: Final = Topic("chat", Item)

LOOPS: Final = [
    pytest.param(REAL, id="asyncio"),
    pytest.param(
        ("asyncio", {"use_uvloop": True}),
        id="uvloop",
        marks=pytest.mark.skipif(find_spec("uvloop") is None, reason="uvloop is not installed"),
    ),
]


@pytest.fixture
def anyio_backend() -> object:
    """Real time: connections are reset by the kernel."""
    return REAL


async def keep_idle(store: RedisStore, count: int) -> None:
    """Make the store keep *count* idle connections."""
    log = store.log(CHAT)
    await asyncio.gather(*(log.max_acknowledged() for _ in range(count)))
    assert len(store._connections._idle) == count


@pytest.mark.parametrize("anyio_backend", LOOPS)
async def test_connections_that_were_reset_are_replaced_immediately(anyio_backend: object) -> None:
    """Whatever the event loop raises for them; after one is found, the others are not tried."""
    fake = FaultyRedis()
    async with fake as store:
        await store.open()
        await keep_idle(store, 8)
        fake.reset()
        await asyncio.sleep(0.05)
        opened, started = fake.connections, now()
        assert await store.log(CHAT).max_acknowledged() == 7
        assert now() - started < HANG_TIMEOUT
        assert fake.connections == opened + 1
        assert len(store._connections._idle) == 1


async def test_silent_connections_cost_one_time_limit() -> None:
    """Not one for each; and the call succeeds although that is longer than its patience."""
    fake = FaultyRedis()
    async with fake:
        store = RedisStore(fake.url, timeout=0.3, patience=0.0)
        await store.open()
        await keep_idle(store, 8)
        fake.mute()
        opened = fake.connections
        assert await store.log(CHAT).max_acknowledged() == 7
        assert fake.connections == opened + 1
        await store.aclose()


async def test_a_failing_server_is_not_asked_without_a_pause() -> None:
    """Only the first idle connection that is found dead is replaced without a back-off."""
    fake = FaultyRedis()
    async with fake as store:
        await store.open()
        fake.reset()
        fake.silent = True
        store._connections._timeout = 0.05
        opened = fake.connections
        with pytest.raises(StoreError, match="did not respond within"):
            await store.log(CHAT).max_acknowledged()
        assert fake.connections - opened < 8


async def test_the_connection_of_a_cancelled_command_is_not_used_again() -> None:
    """redis-py would connect it anew, without the checks that each connection begins with."""
    fake = FaultyRedis()
    async with fake as store:
        await store.open()
        fake.silent = True
        command = asyncio.ensure_future(store.log(CHAT).max_acknowledged())
        await wait_until(lambda: fake.scripts)
        command.cancel()
        await asyncio.wait([command])
        fake.silent = False
        fake.commands.clear()
        assert await store.log(CHAT).max_acknowledged() == 7
        assert [words[0] for words in fake.commands].count(b"INFO") == 1


# -- the password ---------------------------------------------------------------------------------


async def open_within(store: RedisStore, how: str) -> None:
    if how == "asyncio.timeout":
        async with asyncio.timeout(0.1):
            await store.open()
    else:
        with anyio.fail_after(0.1):
            await store.open()


@pytest.mark.parametrize("how", ["task", "asyncio.timeout", "anyio.fail_after"])
async def test_a_cancelled_connection_does_not_show_the_password(how: str) -> None:
    """In no frame of the cancellation, wherever it arrives in redis-py."""
    fake = FaultyRedis()
    fake.silent = True
    async with fake as store:
        task = asyncio.ensure_future(store.open())
        await wait_until(lambda: fake.commands)  # it authenticates
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task
        assert not redis_server.leaks(cancelled.value)
        if how == "task":
            return
        with pytest.raises(TimeoutError) as expired:
            await open_within(store, how)
        assert not redis_server.leaks(expired.value)


async def test_redis_py_warns_about_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Not at a connection with a password either."""
    async with FaultyRedis() as store:
        await store.open()
    assert [record for record in caplog.records if record.name.startswith("redis")] == []


async def test_the_host_of_a_certificate_is_checked(tmp_path: Path) -> None:
    """Whatever the default of redis-py is: the password is not sent to another host."""
    authority, ca = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("other.example").configure_cert(context)
    fake = FaultyRedis(context=context)
    async with fake:
        store = RedisStore(f"{fake.url.replace('redis://', 'rediss://')}?ssl_ca_certs={ca}")
        with pytest.raises(StoreError, match="certificate that is not trusted") as caught:
            await store.open()
        assert not caught.value.transient
        assert fake.commands == []


@redis_server.needs_a_server
async def test_a_password_that_is_being_changed_is_waited_for(folder: Path) -> None:
    """It was right when the store was opened, so the error is transient."""
    from redis.asyncio import Redis

    with redis_server.real_server(folder, password=CANARY) as server:
        store = RedisStore(server.url, patience=0.0)
        await store.open()
        async with Redis(port=server.port, password=CANARY) as admin:
            await admin.config_set("requirepass", "another")
            await admin.client_kill_filter(_type="normal", skipme=True)
            for _ in range(2):
                with pytest.raises(StoreError, match="rejects the user name") as caught:
                    await store.log(CHAT).max_acknowledged()
                assert caught.value.transient
            await admin.config_set("requirepass", CANARY)
        assert await store.log(CHAT).max_acknowledged() == 0
        await store.aclose()


async def test_what_a_server_responds_is_shown_without_control_characters() -> None:
    """A terminal would obey them. The password is hidden in both spellings."""
    fake = FaultyRedis(b"-ERR unknown \x1b[2J\xe2\x80\xae " + CANARY.encode())
    async with fake as store:
        await store.open()
        with pytest.raises(StoreError, match="unknown") as caught:
            await store.log(CHAT).max_acknowledged()
        assert str(caught.value).isprintable()
        assert CANARY not in str(caught.value)


async def test_a_password_given_as_the_user_name_is_not_shown() -> None:
    """The colon before it is missing; the server repeats it."""
    fake = FaultyRedis(b"-ERR unknown command AUTH default " + CANARY.encode())
    async with fake as proper:
        store = RedisStore(f"redis://{CANARY}@127.0.0.1:{proper._address.port}/0", patience=0.3)
        await store.open()
        with pytest.raises(StoreError, match="unknown") as caught:
            await store.log(CHAT).max_acknowledged()
        assert CANARY not in str(caught.value)
        await store._connections.aclose()


@pytest.mark.parametrize(
    ("url", "exposed"),
    [
        ("redis://localhost", False),
        ("redis://127.0.0.2", False),
        ("redis://[::1]", False),
        ("redis://LOCALHOST.", False),
        ("redis://any.localhost", True),
        ("redis://[::ffff:127.0.0.1]", True),
        ("rediss://db.example", False),
        ("redis://db.example", True),
        ("valkey://10.0.0.7", True),
    ],
)
def test_a_connection_is_exposed(url: str, exposed: bool) -> None:
    """If it goes to another machine without TLS."""
    assert RedisStore(url)._address.is_exposed is exposed


async def test_an_exposed_connection_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each process, however many stores there are."""
    monkeypatch.setattr(Address, "is_exposed", True)
    fake = FaultyRedis()
    async with fake:
        for _ in range(2):
            store = RedisStore(fake.url)
            await store.open()
            await store.aclose()
    messages = [record.getMessage() for record in caplog.records]
    assert len([text for text in messages if "is not encrypted: use rediss://" in text]) == 1
    assert CANARY not in "".join(messages)


@redis_server.needs_a_server
async def permit_bot(admin: Any, *changes: str) -> None:
    """Create the user of the guide on workers, and change its rights."""
    guide = Path(__file__).parent.parent / "docs" / "how-to" / "workers.md"
    (line,) = [line for line in guide.read_text().splitlines() if "ACL SETUSER" in line]
    words = line.partition("redis-cli ")[2].replace("'", "").split()
    await admin.execute_command(*words)
    await admin.execute_command("ACL", "SETUSER", "bot", *changes)


async def follow(stream: Stream[Any]) -> None:
    async for _ in stream:
        pass


async def test_the_documented_rights_are_enough(folder: Path) -> None:
    """For two workers with named streams of chat and mail, a post, and what `top` reads.

    The server records every command that it has denied.
    """
    from redis.asyncio import Redis

    with redis_server.real_server(folder) as server:
        async with Redis(port=server.port) as admin, FakeServices() as fake:
            await permit_bot(admin)
            for number in range(3):
                fake.chat.say("alice", f"{number}")
                fake.mail.deliver("alice", f"{number}")
            url = f"redis://bot:PASSWORD@127.0.0.1:{server.port}/0"
            rates = dict.fromkeys(DEFAULT_RATES, Rate(0.01))
            async with (
                fake.session(store=RedisStore(url), rates=rates) as first,
                fake.session(store=RedisStore(url), rates=rates) as second,
                anyio.create_task_group() as tasks,
            ):
                for session in (first, second):
                    tasks.start_soon(follow, session.peerbet.chat_stream(name="a", after=0))
                    tasks.start_soon(follow, session.pythbots.mail_stream(name="a"))
                await first.peerbet.post("hello", bot=True)
                store = RedisStore(url)
                await store.open()
                with anyio.fail_after(20):
                    while await lags_of(store) != [0, 0]:  # noqa: ASYNC110 - another process
                        await asyncio.sleep(0.02)
                assert await store.other_prefixes() == []
                await store.aclose()
                first.stop()
                second.stop()
            denied = await admin.acl_log()
            assert denied == []


async def lags_of(store: RedisStore) -> list[int]:
    """Return how far each name is behind, in each log that has entries."""
    logs = (await store.snapshot()).logs
    return [reader.lag for log in logs if log.head for reader in log.readers]


@pytest.mark.parametrize(
    ("right", "missing"),
    [
        ("-@set", "SADD, SMEMBERS"),
        ("-smembers", "SMEMBERS"),
        ("-xinfo", "XINFO CONSUMERS, XINFO GROUPS, XINFO STREAM"),
        ("-evalsha", "EVALSHA"),
        ("-scan", "SCAN"),
    ],
)
async def test_a_missing_right_is_found_when_a_store_opens(
    folder: Path, right: str, missing: str
) -> None:
    """The error names the commands, and no user. Nothing is changed in the store by the check."""
    from redis.asyncio import Redis

    with redis_server.real_server(folder) as server:
        async with Redis(port=server.port) as admin:
            await permit_bot(admin)
            store = RedisStore(f"redis://bot:PASSWORD@127.0.0.1:{server.port}/0")
            await store.open()
            before = await admin.keys()
            await permit_bot(admin, right)
            other = RedisStore(f"redis://bot:PASSWORD@127.0.0.1:{server.port}/0")
            with pytest.raises(StoreError, match=f"the user {missing}, which") as caught:
                await other.open()
            assert not caught.value.transient
            assert "bot" not in str(caught.value)
            assert await admin.keys() == before
            await permit_bot(admin, "-@all", "+ping")
            with pytest.raises(StoreError, match="does not permit the user EVALSHA, which"):
                await store.log(CHAT).max_acknowledged()
            with suppress(StoreError):
                await store.aclose()


def test_the_check_of_rights_knows_every_command() -> None:
    """Those of the scripts, also in tables, and those that connections send."""
    folder = Path(redis_scripts.__file__).parent / "lua"
    rights = re.findall(r"^  \{'(\w+)'", (folder / "rights.lua").read_text(), re.MULTILINE)
    scripts = "".join(path.read_text() for path in folder.glob("*.lua") if path.stem != "rights")
    called = set(re.findall(r"(?:call\(\s*|command = \{)'([A-Z]+)'", scripts))
    assert len(called) > 30
    sent = set(re.findall(r'\("([A-Z]+)"', (folder.parent / "connection.py").read_text()))
    assert {"SCAN", "XREAD"} <= sent
    assert set(rights) == called | sent - {"PING", "EVAL", "EVALSHA", "INFO"}
