"""The public names of ``pythpeer``, for type checkers.

At run time `pythpeer` imports each name from its module on first use, by a table of its own. The
tests compare the table with these imports.
"""

from __future__ import annotations

from .dice import DiceRoll, DiceStats
from .errors import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    GapError,
    HttpStatusError,
    InvalidRequestError,
    MissingKeyError,
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
from .version import __version__
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
    "DiceRoll",
    "DiceStats",
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
    "MissingKeyError",
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
    "__version__",
    "merge",
    "run",
    "split_text",
]
