"""OpenTelemetry: a span for each request, and metrics. It needs the extra ``otel``.

It receives the events of `Telemetry`, which hold no key, no text and no user names. It depends only
on ``opentelemetry-api``: the program configures where spans and metrics are exported.

Names follow the stable semantic conventions for HTTP clients
(https://opentelemetry.io/docs/specs/semconv/http/).
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from .extras import install_advice
from .hooks import DeliveryEvent, GapEvent, ResponseEvent, RetryEvent, StoreEvent, Telemetry
from .version import __version__

try:
    from opentelemetry import metrics, trace
except ImportError as _error:
    raise ImportError(f"pythpeer.otel needs opentelemetry; {install_advice('otel')}") from _error

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["OpenTelemetry"]

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.23.1"
"""The first version of the schema with the stable conventions for HTTP."""

DURATION_BUCKETS: Final = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
)
"""Histogram bounds for durations, in seconds: those that the conventions advise."""

WAIT_BUCKETS: Final = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Histogram bounds for waits, in seconds: most endpoints permit a request every few seconds."""

ENDPOINT_ATTRIBUTE: Final = "pythpeer.endpoint"
"""Name of the attribute for the endpoint's name, on spans and metrics."""

Attributes = dict[str, str | int | float]
"""Attributes of a span or a metric."""


class OpenTelemetry(Telemetry):
    """Spans and metrics of sessions: ``Session(telemetry=OpenTelemetry())``.

    One object can serve several sessions. Each attempt of a request is a separate client span,
    whose parent is the current span of the call. It is created when the request has ended, with
    the times of the request: the requests to the services carry no trace context.

    Args:
        tracer_provider: Provider for spans; the global one of the program by default.
        meter_provider: Provider for metrics; the global one of the program by default.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        name, release = "pythpeer", __version__
        self._tracer = trace.get_tracer(name, release, tracer_provider, SCHEMA_URL)
        meter = metrics.get_meter(name, release, meter_provider, SCHEMA_URL)
        counter, histogram = meter.create_counter, meter.create_histogram
        self._duration = histogram(
            "http.client.request.duration",
            "s",
            "Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )
        self._wait = histogram(
            "pythpeer.limiter.wait",
            "s",
            "How long requests waited for their tokens.",
            explicit_bucket_boundaries_advisory=WAIT_BUCKETS,
        )
        self._store = histogram(
            "pythpeer.store.duration",
            "s",
            "How long the store needed for the items of a poll.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )
        self._requests = counter("pythpeer.requests", "{request}", "Requests by their outcome.")
        self._retries = counter("pythpeer.retries", "{retry}", "Reads that are repeated.")
        self._messages = counter("pythpeer.messages", "{message}", "New messages and mails.")
        self._duplicates = counter(
            "pythpeer.messages.duplicates", "{message}", "Received again, and dropped."
        )
        self._skipped = counter(
            "pythpeer.messages.skipped", "{message}", "Skipped, because they cannot be decoded."
        )
        self._gaps = counter("pythpeer.gaps", "{gap}", "Gaps in which messages may be missing.")
        self._lag = meter.create_gauge(
            "pythpeer.stream.lag", "{message}", "Distance, in ids, to the newest known item."
        )

    def on_response(self, event: ResponseEvent, /) -> None:
        """Create the span of a request that has ended, and record its duration and its wait."""
        shared = _attributes(event)
        endpoint = {ENDPOINT_ATTRIBUTE: event.endpoint}
        self._create_span(event, shared)
        self._duration.record(event.duration, shared)
        self._wait.record(event.waited, endpoint)
        self._requests.add(1, {**endpoint, "pythpeer.outcome": event.outcome})

    def _create_span(self, event: ResponseEvent, shared: Attributes) -> None:
        end = time.time_ns()
        attributes: Attributes = {
            **shared,
            "url.full": event.url,
            "pythpeer.limiter.wait": event.waited,
            "pythpeer.outcome": event.outcome,
        }
        if event.attempt > 1:
            attributes["http.request.resend_count"] = event.attempt - 1
        span = self._tracer.start_span(
            f"GET {event.endpoint}",
            kind=trace.SpanKind.CLIENT,
            attributes=attributes,
            start_time=end - int(event.duration * 1e9),
        )
        if event.error is not None:
            span.set_status(trace.StatusCode.ERROR)
        span.end(end)

    def on_retry(self, event: RetryEvent, /) -> None:
        """Count a read that will be repeated."""
        self._retries.add(1, {ENDPOINT_ATTRIBUTE: event.endpoint, "error.type": event.error})

    def on_gap(self, event: GapEvent, /) -> None:
        """Count a gap, in which messages may be missing."""
        self._gaps.add(1, {ENDPOINT_ATTRIBUTE: event.endpoint})

    def on_store(self, event: StoreEvent, /) -> None:
        """Record how long the store needed, and count the items of a poll."""
        endpoint = {ENDPOINT_ATTRIBUTE: event.endpoint}
        self._store.record(event.duration, endpoint)
        self._messages.add(event.items, endpoint)
        self._duplicates.add(event.duplicates, endpoint)
        self._skipped.add(event.skipped, endpoint)

    def on_delivery(self, event: DeliveryEvent, /) -> None:
        """Record the lag of a stream that has read items."""
        self._lag.set(
            event.lag, {ENDPOINT_ATTRIBUTE: event.endpoint, "pythpeer.stream": event.stream or ""}
        )


def _attributes(event: ResponseEvent) -> Attributes:
    """Return the attributes that the span and the duration metric share."""
    address, port = _server(event.url.partition("?")[0])
    attributes: Attributes = {
        "http.request.method": "GET",
        "server.address": address,
        "server.port": port,
        ENDPOINT_ATTRIBUTE: event.endpoint,
    }
    if event.status is not None:
        attributes["http.response.status_code"] = event.status
    if event.error is not None:
        wrong_status = event.status is not None and event.status >= 400
        attributes["error.type"] = str(event.status) if wrong_status else event.error
    return attributes


@functools.lru_cache(64)
def _server(url: str) -> tuple[str, int]:
    """Return the host and the port of a URL without a query."""
    parts = urlsplit(url)
    default_port = 443 if parts.scheme == "https" else 80
    return parts.hostname or "", parts.port or default_port
