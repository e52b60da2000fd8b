"""Spans and metrics of OpenTelemetry, as an exporter receives them."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, Final

import aiohttp
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from raw_server import (
    RawServer,
    Step,
    answer,
    api_error,
    closed_port,
    drop,
    error_page,
    hang,
    open_session,
)
from scripted import DROP_WITHOUT_EFFECT, FAST, Scripted

from pythpeer import PythpeerError, Rate, Retry
from pythpeer.otel import OpenTelemetry
from pythpeer.version import __version__

pytestmark = pytest.mark.anyio

CHAT: Final = "peerbet.chat.get"


class Collector:
    """Everything that is exported."""

    def __init__(self) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.telemetry = OpenTelemetry(tracer_provider=self.tracers, meter_provider=self.meters)

    @property
    def spans(self) -> list[ReadableSpan]:
        """Return the spans that have ended, in order."""
        return list(self._spans.get_finished_spans())

    def metrics(self) -> dict[str, list[Any]]:
        """Return the data points of each metric."""
        data = self._reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def counted(self, name: str, by: str) -> dict[object, float]:
        """Return the values of a counter or gauge by one of its attributes."""
        return {point.attributes[by]: point.value for point in self.metrics().get(name, [])}

    def close(self) -> None:
        self.tracers.shutdown()
        self.meters.shutdown()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """An exporter in memory, for both."""
    collector = Collector()
    yield collector
    collector.close()


def attributes(span: ReadableSpan) -> Mapping[str, object]:
    return dict(span.attributes or {})


def seconds(span: ReadableSpan) -> float:
    assert span.end_time is not None
    assert span.start_time is not None
    return (span.end_time - span.start_time) / 1e9


# -- spans ----------------------------------------------------------------------------------------


async def test_a_request_is_a_client_span(collector: Collector) -> None:
    """With the attributes of the conventions, and those of this library."""

    async def late(peer: Any) -> None:
        await asyncio.sleep(1.5)
        await answer().run(peer)

    async with (
        RawServer(Step(late)) as server,
        open_session(server.url, telemetry=collector.telemetry) as session,
    ):
        await session.peerbet.messages(after=7)
    (span,) = collector.spans
    assert (span.name, span.kind) == (f"GET {CHAT}", trace.SpanKind.CLIENT)
    assert attributes(span) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": int(server.url.rpartition(":")[2]),
        "url.full": f"{server.url}/api/chat/?action=get&key=***&mid=7",
        "pythpeer.endpoint": CHAT,
        "pythpeer.limiter.wait": 0.0,
        "pythpeer.outcome": "ok",
    }
    assert span.status.status_code is trace.StatusCode.UNSET
    assert 1.5 <= seconds(span) < 1.7
    scope = span.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version) == ("pythpeer", __version__)


FAILURES: Final[dict[str, tuple[Step, int | None, str, str]]] = {
    "refusal": (api_error("not today"), 200, "ApiError", "refused"),
    "key refused": (api_error("who are you", 401), 401, "401", "refused"),
    "too many": (error_page(429), 429, "429", "limited"),
    "server error": (error_page(500), 500, "500", "failed"),
    "garbage": (answer(b"{"), 200, "DecodeError", "failed"),
    "dropped": (drop(), None, "TransportError", "failed"),
    "silence": (hang(), None, "RequestTimeoutError", "failed"),
}


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failure_is_an_error(failure: str, collector: Collector) -> None:
    """Its type is the status where that is an error, else the class of the error."""
    step, status, kind, outcome = FAILURES[failure]
    async with (
        RawServer(step) as server,
        open_session(server.url, telemetry=collector.telemetry, timeout=3.0) as session,
    ):
        with pytest.raises(PythpeerError):
            await session.peerbet.messages()
    (span,) = collector.spans
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.status.description is None
    assert span.events == ()
    about = attributes(span)
    assert about.get("http.response.status_code") == status
    assert (about["error.type"], about["pythpeer.outcome"]) == (kind, outcome)
    (point,) = collector.metrics()["http.client.request.duration"]
    assert point.attributes["error.type"] == kind
    assert "url.full" not in point.attributes
    assert collector.counted("pythpeer.requests", "pythpeer.outcome") == {outcome: 1}


async def test_a_cancelled_request_is_a_span_too(collector: Collector) -> None:
    """No caller waits for it any more, but it was sent."""
    async with (
        RawServer(hang()) as server,
        open_session(server.url, telemetry=collector.telemetry) as session,
    ):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await session.peerbet.messages()
    (span,) = collector.spans
    assert attributes(span)["pythpeer.outcome"] == "cancelled"
    assert 0.9 < seconds(span) < 1.2


async def test_repetitions_are_separate_spans(collector: Collector) -> None:
    """Each has its number, and all belong to the span of the caller."""
    tracer = collector.tracers.get_tracer("bot")
    async with (
        RawServer(error_page(503), drop(b"HTTP/1.1 200 OK\r\n"), answer()) as server,
        open_session(
            server.url, retry=Retry(3, base_delay=0.1), telemetry=collector.telemetry
        ) as session,
    ):
        with tracer.start_as_current_span("command") as parent:
            await session.peerbet.messages()
    *tries, command = collector.spans
    assert [attributes(span).get("http.request.resend_count") for span in tries] == [None, 1, 2]
    assert {span.parent and span.parent.span_id for span in tries} == {
        parent.get_span_context().span_id
    }
    assert command.name == "command"
    retries = collector.counted("pythpeer.retries", "error.type")
    assert retries == {"HttpStatusError": 1, "TransportError": 1}


# -- metrics --------------------------------------------------------------------------------------


async def test_durations_and_waits_are_measured(collector: Collector) -> None:
    """In seconds, with suitable bounds."""
    async with (
        RawServer(answer()) as server,
        open_session(
            server.url,
            rates={CHAT: Rate(2.0, 1, 0.0)},
            telemetry=collector.telemetry,
        ) as session,
    ):
        await asyncio.gather(*(session.peerbet.messages() for _ in range(3)))
    metrics = collector.metrics()
    (duration,) = metrics["http.client.request.duration"]
    assert duration.count == 3
    assert duration.explicit_bounds[:3] == (0.005, 0.01, 0.025)
    assert duration.attributes["server.address"] == "127.0.0.1"
    (wait,) = metrics["pythpeer.limiter.wait"]
    assert wait.attributes == {"pythpeer.endpoint": CHAT}
    assert (wait.count, round(wait.sum)) == (3, 6)
    assert collector.counted("pythpeer.requests", "pythpeer.endpoint") == {CHAT: 3}


async def test_streams_are_measured(collector: Collector) -> None:
    """Messages, repetitions, gaps, skipped and dropped messages, the lag, and the store."""
    async with (
        Scripted(overlap=2) as services,
        services.session(telemetry=collector.telemetry) as session,
    ):
        services.script("get", DROP_WITHOUT_EFFECT)
        services.say(400)
        async with session.peerbet.chat_stream(after=1, name="mine") as stream:
            await anext(stream)
            assert collector.counted("pythpeer.stream.lag", "pythpeer.stream") == {"mine": 200}
            for _ in range(299):
                await anext(stream)
            services.show(401, {"id": 401, "by": 7, "msg": []})
            services.say(2)
            await anext(stream)
        assert collector.counted("pythpeer.stream.lag", "pythpeer.stream") == {"mine": 0}
    expected = {
        "pythpeer.messages": 302,
        "pythpeer.messages.duplicates": 2,
        "pythpeer.messages.skipped": 1,
        "pythpeer.gaps": 1,
        "pythpeer.retries": 1,
        "pythpeer.requests": 2,
    }
    for name, count in expected.items():
        assert collector.counted(name, "pythpeer.endpoint") == {CHAT: count}, name
    (store,) = collector.metrics()["pythpeer.store.duration"]
    assert (store.count, store.attributes) == (2, {"pythpeer.endpoint": CHAT})


async def test_mail_is_measured(collector: Collector) -> None:
    """A destructive read is a request, and its items are messages."""
    rates = {"pythbots.mail": FAST}
    async with (
        Scripted() as services,
        services.session(rates=rates, telemetry=collector.telemetry) as session,
    ):
        services.deliver("one", "two")
        async with session.pythbots.mail_stream() as stream:
            await anext(stream)
    assert collector.counted("pythpeer.messages", "pythpeer.endpoint") == {"pythbots.mail": 2}
    (span,) = collector.spans
    assert str(attributes(span)["url.full"]).endswith("/api/mail.php?personal_key=***&readnew")


async def test_one_telemetry_serves_several_sessions(collector: Collector) -> None:
    """Its counters add up."""
    async with RawServer(answer()) as server:
        for _ in range(2):
            async with open_session(server.url, telemetry=collector.telemetry) as session:
                await session.peerbet.messages()
    assert collector.counted("pythpeer.requests", "pythpeer.endpoint") == {CHAT: 2}


async def test_without_a_provider_nothing_is_exported() -> None:
    """A program that has not configured OpenTelemetry runs as before."""
    async with (
        RawServer(answer()) as server,
        open_session(server.url, telemetry=OpenTelemetry()) as session,
    ):
        await session.peerbet.messages()
        assert [
            name for name, _ in server.requests[0].headers if name.lower() == "traceparent"
        ] == []


# -- instrumentation by other libraries -----------------------------------------------------------


@contextlib.contextmanager
def instrumented(collector: Collector) -> Iterator[None]:
    """Every ``ClientSession`` that is created in the block is instrumented."""
    instrumentor = AioHttpClientInstrumentor()
    instrumentor.instrument(
        tracer_provider=collector.tracers, meter_provider=collector.meters, skip_dep_check=True
    )
    try:
        yield
    finally:
        instrumentor.uninstrument()


@pytest.mark.parametrize("asked_for", [True, False])
async def test_instrumented_aiohttp_exports_no_key(asked_for: bool, collector: Collector) -> None:
    """A program that instruments aiohttp sees its own requests, and none of this library."""
    telemetry = collector.telemetry if asked_for else None
    key = "canary7f3a9"
    with instrumented(collector):
        async with (
            RawServer(answer(), answer(), error_page(403), drop(), answer()) as server,
            open_session(server.url, telemetry=telemetry, personal_key=key) as session,
        ):
            await session.pythbots.all_mail()
            await session.pythbots.unread_mail()
            for _ in range(2):
                with pytest.raises(PythpeerError):
                    await session.pythbots.send_mail(5, "private words")
            ours = collector.spans
            assert [span.name for span in ours] == ["GET pythbots.mail"] * (4 if asked_for else 0)
            assert not [span for span in ours if key in span.to_json()]
            assert [target.count(key) for target in server.targets] == [1] * 4
            heads = b"".join(asked.head for asked in server.requests).lower()
            assert b"traceparent" not in heads
            # The instrumentation works, and would have exported the key:
            async with aiohttp.ClientSession() as client:
                await (await client.get(f"{server.url}/?k={key}")).read()
    (theirs,) = [span for span in collector.spans if span not in ours]
    assert key in theirs.to_json()


async def test_instrumented_aiohttp_sees_no_refused_connection(collector: Collector) -> None:
    """Nor a request that never left, whose error has the URL in it."""
    with instrumented(collector), closed_port() as url:
        async with open_session(url) as session:
            with pytest.raises(PythpeerError):
                await session.pythbots.all_mail()
    assert collector.spans == []


# -- without the extra ----------------------------------------------------------------------------


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )


def test_opentelemetry_is_imported_only_on_request() -> None:
    """A session does not even look for OpenTelemetry."""
    program = """
import asyncio, sys
from pythpeer import PythpeerError, Retry, Session

async def main():
    async with Session(peerbet_url="http://127.0.0.1:9", retry=Retry(1)) as session:
        try:
            await session.peerbet.messages()
        except PythpeerError:
            print([name for name in sys.modules if name.startswith("opentelemetry")])

asyncio.run(main())
"""
    done = run(program)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_missing_extra_is_named() -> None:
    """The error of an import without the extra says how to install it."""
    done = run("import sys; sys.modules['opentelemetry'] = None; import pythpeer.otel")
    assert done.returncode == 1
    assert done.stderr.endswith(
        "ImportError: pythpeer.otel needs opentelemetry; run: python -m pip install"
        " \"opentelemetry-api>=1.30\" (the extra 'otel')\n"
    )
