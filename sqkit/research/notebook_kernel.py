"""The kernel a notebook runs in: this interpreter, a private place, nothing of the user's profile.

Called by `sqkit.research.notebooks` only. Whatever kernelspecs, IPython profiles and Jupyter
settings a machine has, a report is computed by the interpreter that runs sqkit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class PrivateKernel:
    """What one run needs: the class papermill starts kernels with, and where they live.

    Attributes
    ----------
    kernel_manager_class
        Handed to ``papermill.execute_notebook``.
    folder
        Removed after the run: connection file, IPython's folder, the kernel's own log.
    """

    kernel_manager_class: Any
    folder: Path
    started: list[Any] = field(default_factory=list)

    def last_words(self) -> str:
        """The last line the kernel process itself wrote, such as a fault's."""
        log = self.folder / "kernel.log"
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
        spoken = [line.strip() for line in lines if line.strip()]
        return spoken[-1] if spoken else ""

    def stop(self) -> None:
        """End every kernel that is still there; an interrupted run may leave one."""
        for manager in self.started:
            process = getattr(manager.provisioner, "process", None)
            if isinstance(process, subprocess.Popen) and process.poll() is None:
                # The kernel leads its own process group, so its children go with it.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextlib.contextmanager
def private_kernel(variables: Mapping[str, str]) -> Iterator[PrivateKernel]:
    """A kernel class for one run; afterwards no process and no file of it is left.

    Parameters
    ----------
    variables
        Environment variables of the kernel beside those it inherits.
    """
    from jupyter_client.kernelspec import KernelSpec  # Jupyter is imported only to run a notebook
    from jupyter_client.manager import AsyncKernelManager

    with tempfile.TemporaryDirectory(prefix="sqkit-kernel-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        environment = {**os.environ, **_fixed_variables(folder), **variables}
        specification = KernelSpec(
            argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name="Python 3 (ipykernel)",
            language="python",
            metadata={"supported_encryption": "curve"},
        )

        class ThisInterpreter(AsyncKernelManager):  # type: ignore[misc]
            """Starts this interpreter under any kernel name."""

            def __init__(self, **settings: Any) -> None:
                super().__init__(**settings)
                # Without encryption ipykernel prints a warning about TCP into every run.
                self.transport_encryption = "auto"
                self.connection_file = str(folder / "kernel.json")
                kernel.started.append(self)

            @property
            def kernel_spec(self) -> Any:
                return specification

            async def _async_pre_start_kernel(self, **settings: Any) -> Any:
                log = open(folder / "kernel.log", "ab")  # noqa: SIM115  closed with the kernel's folder
                settings.update(env=environment, stdout=log, stderr=log)
                try:
                    return await super()._async_pre_start_kernel(**settings)
                finally:
                    logs.append(log)

        logs: list[Any] = []
        kernel = PrivateKernel(ThisInterpreter, folder)
        try:
            yield kernel
        finally:
            kernel.stop()
            for log in logs:
                log.close()


def _fixed_variables(folder: Path) -> dict[str, str]:
    variables = {
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder),
        "JUPYTER_CONFIG_DIR": str(folder / "jupyter"),
        "JUPYTER_NO_CONFIG": "1",
        "MPLBACKEND": "agg",
        "PYTHONHASHSEED": "0",
        "PYTHONSTARTUP": "",
        "COLUMNS": "110",
        "LINES": "40",
        "NO_COLOR": "1",
    }
    home = Path.home()
    if "MPLCONFIGDIR" not in os.environ and not os.access(home, os.W_OK):
        variables["MPLCONFIGDIR"] = str(folder / "matplotlib")
    return variables
