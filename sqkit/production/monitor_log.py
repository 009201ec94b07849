"""The logger of monitoring, and whose lines its are."""

from __future__ import annotations

import logging
from typing import Final

logger = logging.getLogger("sqkit.production.monitoring")
COMPONENT: Final = {"component": "monitoring"}
"""For ``extra``."""
