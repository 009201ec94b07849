"""``python -m sqkit.cli`` is the `sqkit` command."""

from sqkit.cli import run

run()
