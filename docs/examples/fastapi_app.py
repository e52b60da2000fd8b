"""A bot inside a FastAPI application, whose event loop it shares."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response

from pythpeer import Session

logger = logging.getLogger("bot")


async def bot(session: Session) -> None:
    """Answer until the session stops."""
    async for message in session.peerbet.chat_stream(name="bot"):
        print(f"{message.sender!r}: {message.text!r}")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, object], None]:
    """Run the bot while the application runs; requests have it and its session in their state."""
    async with Session.from_env() as session:
        task = asyncio.create_task(bot(session))
        task.add_done_callback(log_end)
        yield {"session": session, "bot": task}
        session.stop()  # the loop of the bot ends after the message that it has
        await asyncio.wait([task])


def log_end(task: asyncio.Task[None]) -> None:
    """Log why the bot has ended: the application continues without it."""
    if not task.cancelled() and task.exception() is not None:
        logger.error("the bot has ended", exc_info=task.exception())


logging.basicConfig(level=logging.INFO)  # uvicorn prints its own log only
app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def show_health(request: Request) -> Response:
    """Return the state, with status 503 if an endpoint or a stream fails, or the bot has ended."""
    session: Session = request.state.session
    task: asyncio.Task[None] = request.state.bot
    health = session.health()
    health = msgspec.structs.replace(health, ok=health.ok and not task.done())
    return Response(
        content=msgspec.json.encode(health),
        status_code=200 if health.ok else 503,
        media_type="application/json",
    )


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8000, access_log=False)
