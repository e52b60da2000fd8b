"""The version of the package."""

from __future__ import annotations

__all__ = ["__version__"]

# Not read from the metadata of the installed package: importing what reads them takes as long as
# starting Python does. The build reads this line.
__version__: str = "0.2.0.dev0"
