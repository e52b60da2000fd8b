"""A bot inside a web application, whose event loop it shares."""

import asyncio
import logging
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from pythpeer import Session

logger = logging.getLogger("bot")

SESSION = web.AppKey("SESSION", Session)
"""The session of the application."""

BOT = web.AppKey("BOT", asyncio.Task[None])
"""The task of the bot."""


async def bot(session: Session) -> None:
    """Answer until the session stops."""
    async for message in session.peerbet.chat_stream(name="bot"):
        print(f"{message.sender!r}: {message.text!r}")


async def run_bot(app: web.Application) -> AsyncIterator[None]:
    """Run the bot while the application runs."""
    async with Session.from_env() as session:
        app[SESSION] = session
        app[BOT] = task = asyncio.create_task(bot(session))
        task.add_done_callback(log_end)
        yield
        session.stop()  # the loop of the bot ends after the message that it has
        await asyncio.wait([task])


def log_end(task: asyncio.Task[None]) -> None:
    """Log why the bot has ended: the application continues without it."""
    if not task.cancelled() and task.exception() is not None:
        logger.error("the bot has ended", exc_info=task.exception())


async def show_health(request: web.Request) -> web.Response:
    """Return the state, with status 503 if an endpoint or a stream fails, or the bot has ended."""
    health = request.app[SESSION].health()
    health = msgspec.structs.replace(health, ok=health.ok and not request.app[BOT].done())
    return web.Response(
        body=msgspec.json.encode(health),
        status=200 if health.ok else 503,
        content_type="application/json",
    )


def make_app() -> web.Application:
    """Return the application."""
    app = web.Application()
    app.cleanup_ctx.append(run_bot)
    app.router.add_get("/health", show_health)
    return app


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    web.run_app(make_app(), host="127.0.0.1", access_log=None)
