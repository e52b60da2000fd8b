"""One poller with a queue for each consumer, a common design of chat bots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from .bare_loops import by_last_id
from .polling import Reading, ServiceAccess

__all__ = ["fan_out"]


@asynccontextmanager
async def fan_out(access: ServiceAccess, readers: int) -> AsyncGenerator[list[Reading]]:
    """Run the aiohttp loop once, with an unbounded queue for each of *readers*."""
    queues = [asyncio.Queue[str]() for _ in range(readers)]

    async def poll(reading: Reading) -> None:
        while True:
            for text in await reading.step():
                for queue in queues:
                    queue.put_nowait(text)

    async with by_last_id(access) as reading:
        task = asyncio.create_task(poll(reading))
        try:
            yield [_queue_reading(queue) for queue in queues]
        finally:
            task.cancel()
            await asyncio.wait([task])


def _queue_reading(queue: asyncio.Queue[str]) -> Reading:
    async def step() -> Sequence[str]:
        return [await queue.get()]

    return Reading(step)
