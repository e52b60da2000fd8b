"""A web page for a chat with the fake services: what ``pythpeer serve`` shows.

    async with FakeServices() as fake, Page(fake) as page:
        print(page.url)

It is for a developer's browser on the same machine. Other web pages can neither read its contents
nor change anything. The rest of the test kit must not import it, because it imports aiohttp's
server immediately.
"""

from __future__ import annotations

from .notices import Notice, Notices
from .server import Page

__all__ = ["Notice", "Notices", "Page"]
