"""Transport: one attempt of one request. aiohttp opens the connections and parses the responses.

- `transport`: one attempt within its time limit; failures become values of `errors`.
- `exchange`: one request written to a connection, and its response read.
- `pool`: which connection serves which request, and how many there are.
- `connection`: one connection, between asyncio and the parser of aiohttp.
- `deadline`: the time limit of all attempts, with one timer.
- `aiohttp_names`: every name of aiohttp that is used, and what is relied on.

aiohttp never has a URL or a header with a key: its connector receives a host and a port, and its
parser the bytes of a response.
"""

from __future__ import annotations

from .response import RawResponse
from .transport import Transport

__all__ = ["RawResponse", "Transport"]
