"""Blocks of the documentation, run in bash as a person would paste them."""

from __future__ import annotations

import datetime as dt
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.factory import PROJECT
from tests.project import clean_environment


def started(block: str, root: Path, now: dt.datetime) -> subprocess.Popen[str]:
    """A block that runs in a project, at a time, in a session of its own; scratch folders lie beside the project."""
    commands, scratch = root.with_name("bin"), root.with_name("scratch")
    for folder in (commands, scratch):
        folder.mkdir(exist_ok=True)
    command = commands / "sqkit"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m sqkit.cli "$@"\n')
    command.chmod(0o755)
    bash = shutil.which("bash")
    assert bash is not None
    return subprocess.Popen(
        [bash, "-e", "-o", "pipefail", "-c", block],
        cwd=root,
        env=clean_environment()
        | {
            "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])),
            "SOURCE_DATE_EPOCH": str(int(now.timestamp())),
            "TMPDIR": str(scratch),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def in_bash(block: str, root: Path, now: dt.datetime) -> str:
    """Run a block to its end, which must be a good one; what it printed."""
    process = started(block, root, now)
    said, complained = process.communicate()
    assert process.returncode == 0, f"{said}\n{complained}"
    return said + complained
