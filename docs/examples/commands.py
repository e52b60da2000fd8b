"""A bot with commands, each a function that returns the answer."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial

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
    SqliteStore,
    StoreError,
    TransportError,
    run,
)

logger = logging.getLogger("bot")

PAUSE = 5.0
"""Seconds until something is sent again that was certainly not sent."""

MAX_TEXT = 250
"""The longest text of a message, in characters."""

Command = Callable[[Session, ChatMessage, str], Awaitable[str]]
"""Takes the session, the message, and the text after the name of the command."""


async def ping(session: Session, message: ChatMessage, rest: str) -> str:
    """Answer with the name of the sender."""
    return f"pong, {message.sender}"


async def who(session: Session, message: ChatMessage, rest: str) -> str:
    """Look a user up, by default the sender."""
    user = await session.pythbots.user(rest or message.sender)
    state = "online" if user.online else "offline"
    return f"{user.username} is {user.rank or 'without a rank'}, and {state}"


COMMANDS: dict[str, Command] = {"!ping": ping, "!who": who}


async def main(session: Session) -> None:
    """Answer until the session stops."""
    async for message in session.peerbet.chat_stream(name="commands"):
        name, _, rest = message.text.partition(" ")
        command = COMMANDS.get(name)
        if command is None or message.is_mine or message.is_bot:
            continue
        text = await answer(command, session, message, rest.strip())
        if not await send(session, partial(session.peerbet.post, text, bot=True)):
            return  # not asking for the next message, so this one is redelivered after a restart


async def answer(command: Command, session: Session, message: ChatMessage, rest: str) -> str:
    """Return the answer to a command, also if the command fails."""
    try:
        text = await command(session, message, rest)
    except ApiError as error:  # such as "User not found"
        text = f"{rest}: {error.message}"
    except PythpeerError as error:  # a read, which the library has repeated already
        logger.warning("%r failed: %s", message.text, error)
        text = f"{message.sender}, the service does not respond; please try again later"
    return text[:MAX_TEXT]


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
    run(main, store=SqliteStore("commands.sqlite"))
