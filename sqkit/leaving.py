"""How a command's process ends: what was said is written, then nothing more runs.

Libraries with thread pools of their own (pyarrow among them) now and then abort while the
interpreter takes itself apart, and a refusal would then look like a crash. Everything of
sqkit's is on disk before a command returns, so there is nothing left to take apart.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """Flush the standard streams and the logs, and end the process with this exit code."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a closed or full stream changes no verdict
            stream.flush()
    os._exit(code)
