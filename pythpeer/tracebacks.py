"""`strip_tracebacks`: an error of a dependency that is not raised again keeps nothing alive."""

from __future__ import annotations

__all__ = ["strip_tracebacks"]


def strip_tracebacks(error: BaseException) -> None:
    """Remove the tracebacks of *error*, its causes and its contexts.

    Errors of aiohttp and redis-py are part of reference cycles with their frames, and from Python
    3.12 on these keep the frames of all callers: the stream whose request failed would exist until
    the next garbage collection. While redis-py authenticates, its frames hold the password.
    """
    links: list[BaseException] = [error]
    seen: set[int] = set()
    while links:
        link = links.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        link.__traceback__ = None
        links += [other for other in (link.__cause__, link.__context__) if other is not None]
