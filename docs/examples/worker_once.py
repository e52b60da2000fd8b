"""One of several workers that answer each command once, also if one of them is killed."""

import logging
import os
from collections.abc import Awaitable, Callable
from functools import partial

from redis.asyncio import Redis

from pythpeer import (
    AccessDeniedError,
    ApiError,
    ChatMessage,
    DecodeError,
    HttpStatusError,
    InvalidRequestError,
    MissingKeyError,
    OutcomeUnknownError,
    PythpeerError,
    RateLimitedError,
    ResponseTooLargeError,
    Session,
    StoreError,
    TransportError,
    run,
)

logger = logging.getLogger("bot")

PAUSE = 5.0
"""Seconds until something is requested again that was certainly not done."""

RECORDED = 7 * 24 * 3600
"""Seconds for which the server keeps the record of an answer."""


async def main(session: Session) -> None:
    """Answer until the session stops."""
    async with Redis.from_url(os.environ["PYTHPEER_STORE"]) as server:
        async for message in session.peerbet.chat_stream(name="team"):
            if message.text != "!ping" or message.is_mine or message.is_bot:
                continue
            answer = f"pong {message.id}, {message.sender}"  # no other answer has this text
            # Recorded before it is answered. If it is recorded already, a worker that was killed,
            # or stopped, had this message before.
            new = await server.set(f"bot:answer:{message.id}", 1, nx=True, ex=RECORDED)
            answered = False if new else await was_answered(session, message, answer)
            if answered:
                continue
            write = partial(session.peerbet.post, answer, bot=True)
            if answered is None or not await send(session, write):
                return  # not asking for the next message, so another worker receives this one


async def was_answered(session: Session, message: ChatMessage, answer: str) -> bool | None:
    """Return whether the chat has the answer to a message; ``None`` if the session stops first."""
    while not session.stopping:
        try:
            page = await session.peerbet.messages(after=message.id, last=300)
            return any(shown.is_mine and shown.text == answer for shown in page.messages)
        except PythpeerError as error:
            if not may_pass(error):
                raise
            logger.warning("the chat is read again: %s", error)
            await session.wait_stopping(PAUSE)
    return None


async def send(session: Session, write: Callable[[], Awaitable[object]]) -> bool:
    """Send a message or a mail, once. Return whether the bot can continue to the next item.

    It returns False if the session stops before anything was sent.
    """
    level = logging.WARNING  # for the first failure; the repeated ones are logged at DEBUG
    while True:
        try:
            await write()
        except OutcomeUnknownError as error:  # a TransportError, so its clause precedes the other
            logger.warning("perhaps sent, so not sent again: %s", error)
            return True
        except PythpeerError as error:
            if is_refused(error):
                logger.warning("refused: %s", error)
                return True
            if not may_pass(error):  # no write will succeed: it ends the bot
                raise
            logger.log(level, "not sent yet, so sent again: %s", error)
        else:
            if level == logging.DEBUG:
                logger.info("sent, after failures")
            return True
        level = logging.DEBUG
        if await session.wait_stopping(PAUSE):
            return False  # nothing was sent, and otherwise it is sent again


def is_refused(error: PythpeerError) -> bool:
    """Return whether this text, or this user, is refused: sent again, it would be again."""
    if error.endpoint == "peerbet.chat.get":  # the read before a post with confirm=True
        return False
    if isinstance(error, (AccessDeniedError, MissingKeyError, RateLimitedError)):
        return False
    if isinstance(error, HttpStatusError):
        return error.status in (400, 413, 414)  # those refuse a text that is too long
    return isinstance(error, (ApiError, InvalidRequestError))


def may_pass(error: PythpeerError) -> bool:
    """Return whether what failed can succeed later without any change."""
    if isinstance(error, TransportError):
        return not error.untrusted
    if isinstance(error, StoreError):
        return error.transient
    if isinstance(error, HttpStatusError) and not isinstance(error, RateLimitedError):
        return error.status is not None and error.status >= 500
    if isinstance(error, ApiError):
        return not isinstance(error, AccessDeniedError)
    return isinstance(error, (RateLimitedError, DecodeError, ResponseTooLargeError))


if __name__ == "__main__":
    run(main)  # PYTHPEER_STORE is the URL of the server
