"""sqkit answers one question about a trading model: may this student trade?"""

from __future__ import annotations

import os

# All are read once, when a library loads: numba must not use Intel's vector maths (other bits on
# other machines), and waiting OpenMP threads must sleep, not spin, beside other processes.
os.environ.setdefault("NUMBA_DISABLE_INTEL_SVML", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# onnxruntime writes a device id into the home folder and reports to its vendor unless told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
