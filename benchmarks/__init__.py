"""What pythpeer costs and whether its pacing holds, beside its peers: ``python -m benchmarks``."""

from typing import Final

NAMES: Final = {
    "pacing": "the interval as the server sees it, in six scenarios (about 3 minutes)",
    "loss": "messages lost and doubled when things go wrong",
    "streams": "messages from a post to `async for`, and one poll for many streams",
    "calls": "one call, small and large, beside other clients",
    "decoding": "an answer's bytes into objects, and a damaged page",
    "limiter": "a token: its time, a waiter's memory, a long queue",
    "day": "24 hours of polling on virtual time (about 3 minutes)",
    "redis": "a store for many machines, against the same server used bare",
    "durable": "what it costs to lose nothing",
    "soak": "a million polls on virtual time, memory flat (about 2 minutes)",
    "imports": "what importing and opening cost",
}
