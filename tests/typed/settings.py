"""Sessions: their options, keys, stores, pacing, opening and closing."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import assert_type

from pythpeer import (
    Limiter,
    MemoryStore,
    PythpeerError,
    Rate,
    Retry,
    Secret,
    Session,
    SessionOptions,
    SqliteStore,
    __version__,
    run,
)
from pythpeer.stores import (
    EndpointSnapshot,
    LatestItem,
    LogSnapshot,
    ReaderSnapshot,
    Store,
    StoreSnapshot,
)


async def set_everything() -> None:
    options: SessionOptions = {
        "timeout": 5.0,
        "max_wait": 30,
        "idle_check": 30,
        "peerbet_key": "key",
    }
    assert_type(Session(**options), Session)
    assert_type(__version__, str)
    assert_type(
        Session(
            peerbet_key=Secret("key"),
            personal_key="key",
            pythbots_api_key=None,
            peerbet_url="https://www.peerbet.org",
            pythbots_url="https://pythbots.com",
            personal_key_param="personal_key",
            rates={"peerbet.chat.get": Rate(2.0, burst=1, guard=0.1)},
            retry=Retry(attempts=2, base_delay=0.1, max_delay=5.0),
            timeout=5.0,
            max_wait=30.0,
            store=MemoryStore(max_length=100),
            max_body=65536,
            idle_check=30.0,
            max_header=32768,
            ssl_context=ssl.create_default_context(),
        ),
        Session,
    )


async def read_the_environment() -> None:
    assert_type(Session.from_env(), Session)
    assert_type(Session.from_env(timeout=5.0, store=MemoryStore()), Session)


class MySession(Session):
    """A session of a user-defined class."""


async def open_and_close() -> None:
    own_session = assert_type(MySession.from_env(), MySession)
    assert_type(await own_session.open(), MySession)
    assert_type(await own_session.aclose(), None)
    async with MySession() as entered:
        assert_type(entered, MySession)
        assert_type(entered.describe(), str)
        assert_type(entered.stop(), None)
        assert_type(entered.stopping, bool)
        assert_type(await entered.wait_stopping(5.0), bool)


async def my_bot(session: Session) -> int:
    session.stop()  # as a signal does: the test of this program has to end
    async for message in session.peerbet.chat_stream():
        print(message.text)
    return 1


def run_a_bot() -> None:
    assert_type(run(my_bot), None)
    run(my_bot, log_level=logging.DEBUG, timeout=5.0)


async def choose_a_store() -> None:
    stores: list[Store] = [MemoryStore(), SqliteStore("chat.db"), SqliteStore(Path("chat.db"))]
    assert_type([Session(store=store) for store in stores], list[Session])
    assert_type(SqliteStore("chat.db").path, Path)


async def read_a_snapshot() -> None:
    store = MemoryStore()
    async with Session(store=store):
        snapshot = assert_type(await store.snapshot(latest=5), StoreSnapshot)
    for log in assert_type(snapshot.logs, tuple[LogSnapshot, ...]):
        assert_type(log.topic, str)
        assert_type(log.head, int)
        assert_type(log.length, int)
        assert_type(log.has_leader, bool)
        assert_type(log.pending_fetches, int)
        for reader in assert_type(log.readers, tuple[ReaderSnapshot, ...]):
            assert_type(reader.name, str)
            assert_type(reader.position, int)
            assert_type(reader.lag, int)
        for latest in assert_type(log.latest, tuple[LatestItem, ...]):
            assert_type(latest.id, int)
            assert_type(latest.item, str | None)
    for endpoint in assert_type(snapshot.endpoints, tuple[EndpointSnapshot, ...]):
        assert_type(endpoint.key, str)
        assert_type(endpoint.requests, int)
        assert_type(endpoint.outstanding, int)
        assert_type(endpoint.waiting, int)
        assert_type(endpoint.paused_for, float)


async def read_the_limiters(session: Session) -> None:
    limiters = assert_type(session.limiters, Mapping[str, Limiter])
    limiter = assert_type(limiters["peerbet.chat.get"], Limiter)
    assert_type(limiter.name, str)
    rate = assert_type(limiter.rate, Rate)
    assert_type(rate.interval, float)
    assert_type(rate.burst, int)
    assert_type(rate.guard, float)
    assert_type(limiter.available, int)
    assert_type(limiter.outstanding, int)
    assert_type(limiter.waiting, int)
    assert_type(limiter.guard, float)
    assert_type(limiter.paused_for, float)
    assert_type(limiter.pause(1.5), None)


class FixedDelay(Retry, frozen=True):
    """A user-defined policy that retries after ten seconds."""

    def delay(self, error: PythpeerError, attempt: int) -> float | None:
        first = assert_type(super().delay(error, attempt), float | None)
        return None if first is None else 10.0


async def use_my_own_retry_policy() -> None:
    retry = FixedDelay(attempts=2)
    assert_type(retry.attempts, int)
    assert_type(retry.base_delay, float)
    assert_type(retry.max_delay, float)
    assert_type(Session(retry=retry), Session)


async def hide_a_key() -> None:
    secret = Secret("key")
    assert_type(secret.reveal(), str)
    assert_type(f"{secret}", str)
