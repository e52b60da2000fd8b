"""The public names of ``pythpeer``: a separate module, so that they are loaded on first use."""

from __future__ import annotations

import logging

from .errors import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    GapError,
    HttpStatusError,
    InvalidRequestError,
    OutcomeUnknownError,
    PythpeerError,
    RateLimitedError,
    RequestTimeoutError,
    ResponseTooLargeError,
    SessionClosedError,
    StoreError,
    TransportError,
)
from .health import EndpointHealth, SessionHealth, StreamHealth
from .hooks import (
    DeliveryEvent,
    GapEvent,
    Hook,
    Outcome,
    RequestEvent,
    ResponseEvent,
    RetryEvent,
    StoreEvent,
    Telemetry,
)
from .pacing.bucket import Rate
from .pacing.limiter import Limiter
from .peerbet import ChatMessage, ChatPage, ChatStream, Peerbet
from .pythbots import ChatStats, Mail, MailStream, PythBots, StaffMember, User
from .retry import Retry
from .running import run
from .secret import Secret
from .session import Session, SessionOptions
from .splitting import split_text
from .stores import MemoryStore, SqliteStore
from .streams.gaps import Gap
from .streams.merged import MergedStream, merge
from .streams.stream import Stream
from .wire.endpoints import Effect, Endpoint
from .wire.query import FLAG, Json, JsonObject, Param

__all__ = [
    "FLAG",
    "AccessDeniedError",
    "ApiError",
    "ChatMessage",
    "ChatPage",
    "ChatStats",
    "ChatStream",
    "DecodeError",
    "DeliveryEvent",
    "Effect",
    "Endpoint",
    "EndpointHealth",
    "Gap",
    "GapError",
    "GapEvent",
    "Hook",
    "HttpStatusError",
    "InvalidRequestError",
    "Json",
    "JsonObject",
    "Limiter",
    "Mail",
    "MailStream",
    "MemoryStore",
    "MergedStream",
    "Outcome",
    "OutcomeUnknownError",
    "Param",
    "Peerbet",
    "PythBots",
    "PythpeerError",
    "Rate",
    "RateLimitedError",
    "RequestEvent",
    "RequestTimeoutError",
    "ResponseEvent",
    "ResponseTooLargeError",
    "Retry",
    "RetryEvent",
    "Secret",
    "Session",
    "SessionClosedError",
    "SessionHealth",
    "SessionOptions",
    "SqliteStore",
    "StaffMember",
    "StoreError",
    "StoreEvent",
    "Stream",
    "StreamHealth",
    "Telemetry",
    "TransportError",
    "User",
    "merge",
    "run",
    "split_text",
]

# No output, unless the program configures logging.
logging.getLogger(__package__).addHandler(logging.NullHandler())
