"""A bot inside a web application, whose event loop it shares."""

import asyncio
from collections.abc import AsyncIterator

from aiohttp import web

from pythpeer import Session


async def bot(session: Session) -> None:
    """Answer until the session stops."""
    async for message in session.peerbet.chat_stream(name="bot"):
        print(f"{message.sender}: {message.text}")


async def run_bot(app: web.Application) -> AsyncIterator[None]:
    """Run the bot while the application runs."""
    async with Session.from_env() as session:
        task = asyncio.create_task(bot(session))
        yield
        session.stop()  # the loop of the bot ends after the message that it has
        await task


def make_app() -> web.Application:
    """Return the application."""
    app = web.Application()
    app.cleanup_ctx.append(run_bot)
    return app


if __name__ == "__main__":
    web.run_app(make_app())
