"""sqkit answers one question about a trading model: may this student trade?"""

from __future__ import annotations

__version__ = "0.1.0"
