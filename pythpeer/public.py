"""What ``import pythpeer`` shows, here so that it is loaded only once it is asked for."""

from __future__ import annotations

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
from .limiter import Limiter
from .peerbet import ChatMessage, ChatPage, ChatStream, Peerbet
from .polling import Gap
from .pythbots import ChatStats, Mail, MailStream, PythBots, StaffMember, User
from .retry import Retry
from .secret import Secret
from .session import Session, SessionOptions
from .splitting import split_text
from .stores import MemoryStore, SqliteStore
from .streams import MergedStream, Stream, merge
from .wire import FLAG, Effect, Endpoint, Json, JsonObject, Param, Rate

__all__ = [
    "FLAG",
    "AccessDeniedError",
    "ApiError",
    "ChatMessage",
    "ChatPage",
    "ChatStats",
    "ChatStream",
    "DecodeError",
    "Effect",
    "Endpoint",
    "Gap",
    "GapError",
    "HttpStatusError",
    "InvalidRequestError",
    "Json",
    "JsonObject",
    "Limiter",
    "Mail",
    "MailStream",
    "MemoryStore",
    "MergedStream",
    "OutcomeUnknownError",
    "Param",
    "Peerbet",
    "PythBots",
    "PythpeerError",
    "Rate",
    "RateLimitedError",
    "RequestTimeoutError",
    "ResponseTooLargeError",
    "Retry",
    "Secret",
    "Session",
    "SessionClosedError",
    "SessionOptions",
    "SqliteStore",
    "StaffMember",
    "StoreError",
    "Stream",
    "TransportError",
    "User",
    "merge",
    "split_text",
]
