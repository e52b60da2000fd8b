"""Benchmarks of pythpeer compared with other libraries: ``python -m benchmarks``."""

from typing import Final

NAMES: Final = {
    "pacing": "the interval between requests at the server, in six scenarios (about 3 minutes)",
    "loss": "messages lost and duplicated during faults",
    "streams": "delay from a post to `async for`, and one poll for many streams",
    "calls": "one call, small and large, compared with other clients",
    "decoding": "decoding of a response into objects, and of a damaged page",
    "limiter": "limiters: time of a token, memory of a waiter, a long queue",
    "day": "24 hours of polling on virtual time (about 3 minutes)",
    "redis": "the store for many machines, compared with bare commands to the same server",
    "durable": "the cost of durable streams",
    "soak": "a million polls on virtual time with constant memory (about 2 minutes)",
    "imports": "the cost of importing and of opening a session",
}
