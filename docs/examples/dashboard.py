"""A bot with a web page of the latest messages, and its health for a monitor."""

import html
import os
from collections import deque

import msgspec
from aiohttp import web

from pythpeer import ChatMessage, Session, SqliteStore, run

MESSAGES = 50
"""How many of the latest messages the page shows."""


async def main(session: Session) -> None:
    """Follow the chat, and serve the pages, until the session stops."""
    latest: deque[ChatMessage] = deque(maxlen=MESSAGES)

    async def show_messages(request: web.Request) -> web.Response:
        lines = (html.escape(f"{message.sender}: {message.text}") for message in latest)
        text = "\n".join(f"<li>{line}" for line in lines)
        return web.Response(text=f"<!DOCTYPE html><ul>{text}</ul>", content_type="text/html")

    async def show_health(request: web.Request) -> web.Response:
        health = session.health()
        return web.Response(
            body=msgspec.json.encode(health),
            status=200 if health.ok else 503,
            content_type="application/json",
        )

    app = web.Application()
    app.router.add_get("/", show_messages)
    app.router.add_get("/health", show_health)
    runner = web.AppRunner(app, access_log=None)  # or each request is logged at INFO
    await runner.setup()
    try:
        host = os.environ.get("HOST", "127.0.0.1")  # for this machine only
        await web.TCPSite(runner, host, int(os.environ.get("PORT", "8080"))).start()
        async for message in session.peerbet.chat_stream(name="dashboard"):
            latest.append(message)
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    run(main, store=SqliteStore("dashboard.sqlite"))
