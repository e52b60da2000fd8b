"""Hooks, telemetry, and health."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import datetime
from typing import assert_type

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider

from pythpeer import (
    DeliveryEvent,
    EndpointHealth,
    GapEvent,
    Hook,
    Outcome,
    RequestEvent,
    ResponseEvent,
    RetryEvent,
    Session,
    SessionHealth,
    StoreEvent,
    StreamHealth,
    Telemetry,
    merge,
)
from pythpeer.otel import OpenTelemetry
from pythpeer.testing import FakeServices


def before(event: RequestEvent) -> None:
    assert_type(event.endpoint, str)
    assert_type(event.url, str)
    assert_type(event.attempt, int)
    assert_type(event.waited, float)


class Watcher(Telemetry):
    """Receives all events."""

    def on_request(self, event: RequestEvent, /) -> None:
        before(event)

    async def on_response(self, event: ResponseEvent, /) -> None:
        assert_type(event.url, str)
        assert_type(event.attempt, int)
        assert_type(event.waited, float)
        assert_type(event.duration, float)
        assert_type(event.status, int | None)
        assert_type(event.outcome, Outcome)
        assert_type(event.error, str | None)

    def on_retry(self, event: RetryEvent, /) -> None:
        assert_type(event.attempt, int)
        assert_type(event.delay, float)
        assert_type(event.status, int | None)
        assert_type(event.error, str)

    def on_gap(self, event: GapEvent, /) -> Awaitable[None] | None:
        assert_type(event.after, int)
        assert_type(event.before, int)
        return None

    def on_store(self, event: StoreEvent, /) -> None:
        assert_type(event.items, int)
        assert_type(event.duplicates, int)
        assert_type(event.skipped, int)
        assert_type(event.duration, float)

    def on_delivery(self, event: DeliveryEvent, /) -> None:
        assert_type(event.stream, str | None)
        assert_type(event.items, int)
        assert_type(event.lag, int)


async def use_hooks(fake: FakeServices) -> None:
    every = Watcher()
    gaps: list[GapEvent] = []
    report: Hook[GapEvent] = gaps.append
    retries: list[RetryEvent] = []
    observed = fake.session(
        on_request=before,
        on_response=every.on_response,
        on_retry=retries.append,
        on_gap=report,
        telemetry=every,
    )
    async with observed as session:
        fake.chat.say("alice", "hello")
        async with session.peerbet.chat_stream(after=0) as stream:
            await anext(stream)
    for hook in (every.on_request, every.on_retry, every.on_gap, every.on_store, every.on_delivery):
        assert callable(hook)


async def export(fake: FakeServices) -> None:
    assert_type(OpenTelemetry(), OpenTelemetry)
    telemetry = OpenTelemetry(
        tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider()
    )
    async with fake.session(telemetry=telemetry) as session:
        await session.peerbet.messages()


async def read_health(session: Session) -> None:
    stream = session.peerbet.chat_stream()
    health = assert_type(session.health(), SessionHealth)
    assert_type(health.at, datetime)
    assert_type(health.ok, bool)
    assert_type(health.open, bool)
    assert_type(health.endpoints, Mapping[str, EndpointHealth])
    assert_type(health.streams, tuple[StreamHealth, ...])
    endpoint = health.endpoints["peerbet.chat.get"]
    assert_type(endpoint.last_success, datetime | None)
    assert_type(endpoint.failures, int)
    assert_type(endpoint.last_error, str | None)
    assert_type(endpoint.failing_since, datetime | None)
    assert_type(endpoint.waiting, int)
    assert_type(endpoint.next_token, float)
    assert_type(endpoint.paused_for, float)
    assert_type(endpoint.waiting_for_connection, int)
    assert_type(session.limiters["peerbet.chat.get"].next_token, float)
    stream_health = assert_type(stream.health(), StreamHealth)
    assert_type(stream_health.recovery_error, str | None)
    assert_type(stream_health.endpoint, str)
    assert_type(stream_health.name, str | None)
    assert_type(stream_health.closed, bool)
    assert_type(stream_health.last_success, datetime | None)
    assert_type(stream_health.failures, int)
    assert_type(stream_health.last_error, str | None)
    assert_type(stream_health.failing_since, datetime | None)
    assert_type(stream_health.restarts, int)
    assert_type(stream_health.polling, bool)
    assert_type(stream_health.next_poll, datetime | None)
    assert_type(stream_health.cursor, int | None)
    assert_type(stream_health.lag, int)
    assert_type(stream_health.gaps, int)
    assert_type(stream_health.restarts, int)
    assert_type(stream_health.skipped, int)
    assert_type(merge(stream).health(), tuple[StreamHealth, ...])
