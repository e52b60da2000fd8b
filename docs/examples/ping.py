"""A bot that answers ``!ping``, once, whatever fails."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial

from pythpeer import (
    AccessDeniedError,
    ApiError,
    HttpStatusError,
    InvalidRequestError,
    MissingKeyError,
    OutcomeUnknownError,
    RateLimitedError,
    Session,
    SqliteStore,
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
        except OutcomeUnknownError as error:  # a TransportError, so its clause precedes that one
            logger.warning("perhaps sent, so not sent again: %s", error)
            return True
        except (AccessDeniedError, MissingKeyError):  # no write will succeed: it ends the bot
            raise
        except (ApiError, InvalidRequestError) as error:  # this text, or this user, is refused
            logger.warning("refused: %s", error)
            return True
        except RateLimitedError as error:
            logger.log(level, "not sent yet, so sent again: %s", error)
        except HttpStatusError as error:
            if error.status not in (400, 413, 414):  # those refuse this text, as too long
                raise
            logger.warning("refused: %s", error)
            return True
        except TransportError as error:
            if error.untrusted:  # waiting does not help
                raise
            logger.log(level, "not sent yet, so sent again: %s", error)
        except StoreError as error:
            if not error.transient:
                raise
            logger.log(level, "not sent yet, so sent again: %s", error)
        else:
            if level == logging.DEBUG:
                logger.info("sent, after failures")
            return True
        level = logging.DEBUG
        if await session.wait_stopping(PAUSE):
            return False  # nothing was sent, and otherwise it is sent again


if __name__ == "__main__":
    run(main, store=SqliteStore("ping.sqlite"))
