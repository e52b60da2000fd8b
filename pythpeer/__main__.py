"""``python -m pythpeer`` is the command ``pythpeer``."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())
