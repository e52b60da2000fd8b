"""The bot of ping.py, with its key from the credentials of systemd."""

import logging
import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from pythpeer import (
    AccessDeniedError,
    ApiError,
    DecodeError,
    HttpStatusError,
    InvalidRequestError,
    MissingKeyError,
    OutcomeUnknownError,
    PythpeerError,
    RateLimitedError,
    ResponseTooLargeError,
    Secret,
    Session,
    StoreError,
    TransportError,
    run,
)

logger = logging.getLogger("bot")

PAUSE = 5.0
"""Seconds until something is sent again that was certainly not sent."""


async def main(session: Session) -> None:
    """Answer until the session stops."""
    async for message in session.peerbet.chat_stream(name="ping"):
        if message.text != "!ping" or message.is_mine or message.is_bot:
            continue
        answer = f"pong, {message.sender}"
        if not await send(session, partial(session.peerbet.post, answer, bot=True)):
            return  # not asking for the next message, so this one is redelivered after a restart


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


def credential(name: str) -> Secret:
    """Return a key from the folder of credentials."""
    folder = Path(os.environ.get("CREDENTIALS_DIRECTORY", "."))
    return Secret((folder / name).read_text().strip())


if __name__ == "__main__":
    try:
        run(main, peerbet_key=credential("peerbet"))
    except (AccessDeniedError, InvalidRequestError) as error:  # such as a wrong key
        logger.critical("%s", error)
        sys.exit(os.EX_CONFIG)  # 78, for which the unit does not start the bot again
