"""OpenTelemetry, for the extra ``otel``: a span for each request, and metrics.

Built on what any `Telemetry` is told, so it sees no key, and neither text nor user names. It needs
``opentelemetry-api`` and nothing else: where spans and metrics go is for the program to set up.

Names follow the stable semantic conventions for HTTP clients
(https://opentelemetry.io/docs/specs/semconv/http/).
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from .hooks import DeliveryEvent, GapEvent, ResponseEvent, RetryEvent, StoreEvent, Telemetry
from .version import version

try:
    from opentelemetry import metrics, trace
except ImportError as _error:
    raise ImportError("pythpeer.otel needs an extra: pip install 'pythpeer[otel]'") from _error

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

__all__ = ["OpenTelemetry"]

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.23.1"
"""The first with the stable conventions for HTTP."""

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
"""The bounds that the conventions advise for durations."""

WAIT_BUCKETS: Final = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bounds for waiting, which is by the second here."""

ENDPOINT_ATTRIBUTE: Final = "pythpeer.endpoint"

Attributes = dict[str, str | int | float]


class OpenTelemetry(Telemetry):
    """Spans and metrics of sessions: ``Session(telemetry=OpenTelemetry())``.

    *tracer_provider* and *meter_provider* are the program's global ones if none are given. One
    object can serve several sessions. Each attempt of a request is a client span of its own, with
    the span that is current where the call was made as its parent. It is made when the request is
    over, with the times that it had: what is sent to the services carries no trace.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        name, release = "pythpeer", version()
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
            "How long the store took for what a poll brought.",
            explicit_bucket_boundaries_advisory=DURATION_BUCKETS,
        )
        self._requests = counter("pythpeer.requests", "{request}", "Requests by their outcome.")
        self._retries = counter("pythpeer.retries", "{retry}", "Reads that are asked again.")
        self._messages = counter("pythpeer.messages", "{message}", "New messages and mails.")
        self._duplicates = counter(
            "pythpeer.messages.duplicates", "{message}", "Shown again by the service, and dropped."
        )
        self._skipped = counter(
            "pythpeer.messages.skipped", "{message}", "Skipped, because they cannot be decoded."
        )
        self._gaps = counter("pythpeer.gaps", "{gap}", "Places where messages may be missing.")
        self._lag = meter.create_gauge(
            "pythpeer.stream.lag", "{message}", "How far, in ids, a stream is behind."
        )

    def on_response(self, event: ResponseEvent, /) -> None:
        """A request is over: a span, its duration, and its wait."""
        about = _attributes(event)
        endpoint = {ENDPOINT_ATTRIBUTE: event.endpoint}
        self._trace(event, about)
        self._duration.record(event.duration, about)
        self._wait.record(event.waited, endpoint)
        self._requests.add(1, {**endpoint, "pythpeer.outcome": event.outcome})

    def _trace(self, event: ResponseEvent, about: Attributes) -> None:
        end = time.time_ns()
        attributes: Attributes = {
            **about,
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
        """A read is going to be asked again."""
        self._retries.add(1, {ENDPOINT_ATTRIBUTE: event.endpoint, "error.type": event.error})

    def on_gap(self, event: GapEvent, /) -> None:
        """Messages may be missing."""
        self._gaps.add(1, {ENDPOINT_ATTRIBUTE: event.endpoint})

    def on_store(self, event: StoreEvent, /) -> None:
        """What a poll brought is in the store."""
        endpoint = {ENDPOINT_ATTRIBUTE: event.endpoint}
        self._store.record(event.duration, endpoint)
        self._messages.add(event.items, endpoint)
        self._duplicates.add(event.duplicates, endpoint)
        self._skipped.add(event.skipped, endpoint)

    def on_delivery(self, event: DeliveryEvent, /) -> None:
        """A stream took items from its log."""
        self._lag.set(
            event.lag, {ENDPOINT_ATTRIBUTE: event.endpoint, "pythpeer.stream": event.stream or ""}
        )


def _attributes(event: ResponseEvent) -> Attributes:
    """What span and metric say in common."""
    address, port = _server(event.url.partition("?")[0])
    about: Attributes = {
        "http.request.method": "GET",
        "server.address": address,
        "server.port": port,
        ENDPOINT_ATTRIBUTE: event.endpoint,
    }
    if event.status is not None:
        about["http.response.status_code"] = event.status
    if event.error is not None:
        wrong_status = event.status is not None and event.status >= 400
        about["error.type"] = str(event.status) if wrong_status else event.error
    return about


@functools.lru_cache(64)
def _server(url: str) -> tuple[str, int]:
    """Host and port of a URL without its query."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
