"""A web page to chat in with the fake services: what ``pythpeer serve`` shows.

    async with FakeServices() as fake, Page(fake) as page:
        print(page.url)

It is for a developer's own browser on the same machine. Other web pages get nothing out of it and
nothing into it. Not imported by the rest of the test kit, for it needs aiohttp's server at once.
"""

from __future__ import annotations

from .notices import Notice, Notices
from .server import Page

__all__ = ["Notice", "Notices", "Page"]
