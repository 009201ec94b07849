"""What the gate lets through: ``.venv/bin/python benchmarks/gate.py [--json] [--attempts N] [--seed N]``.

Simulates validations of 63 days x 100 correlated symbols with a known answer and judges them with the
gate's own code (`sqkit.research.gate_simulation`; assumptions in `sqkit.research.gate_world`). Two equal
models should be promoted in at most 3 % of attempts, and a student that is really 2.5 points better
nearly as often as by thresholds alone. One core, at most five minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"  # one core: before NumPy is imported

from sqkit.checklist_inputs import Policy
from sqkit.research.gate_simulation import error_rates, world_facts
from sqkit.research.gate_world import World
from sqkit.settings import Settings

ATTEMPTS = 4000
"""Standard error of a share of 3 %: .27 points."""

FACT_ATTEMPTS = 500


def measure(attempts: int, seed: int) -> dict[str, Any]:
    """Error rates, and what the simulated world looks like."""
    begun = time.perf_counter()
    world, policy = World(), Policy.from_settings(Settings(_env_file=None))
    rates = error_rates(world, policy, attempts=attempts, seed=seed)
    facts = world_facts(world, attempts=min(attempts, FACT_ATTEMPTS), seed=seed)
    return {
        **rates,
        "attempts": attempts,
        "seed": seed,
        "parameters": asdict(world),
        "policy": policy.to_dict(),
        "world": facts,
        "seconds": round(time.perf_counter() - begun, 1),
    }


def table(measured: dict[str, Any]) -> str:
    """The rates for a reader."""
    lines = [f"{'share of attempts promoted':<46}{'thresholds only':>16}{'with evidence':>16}"]
    for title, arms in (("incumbent model", measured), ("no incumbent", measured["no_incumbent"])):
        for key in ("one_attempt", "ten_attempts"):
            pair = [arms["equal_models"][name][key] for name in ("thresholds_only", "with_evidence")]
            lines.append(_line(f"{title}: equal models, {key.replace('_', ' ')}", pair))
        for student in ("better_student", "noise_student", "echo_student"):
            if student in arms:
                pair = [arms[student][name] for name in ("thresholds_only", "with_evidence")]
                lines.append(_line(f"{title}: {student.replace('_', ' ')}", pair))
    power = measured["world"]["power"]
    lines.append("power of a better student's tests at one-sided 5 %:")
    lines += [f"  {name:<44}{share:>16.3f}" for name, share in power.items()]
    lines.append(f"{measured['attempts']} attempts an arm, seed {measured['seed']}, {measured['seconds']} s")
    return "\n".join(lines)


def _line(title: str, pair: list[float | None]) -> str:
    return f"{title:<46}" + "".join(f"{'n/a' if share is None else f'{share:.3f}':>16}" for share in pair)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--attempts", type=int, default=ATTEMPTS, help="simulated validations an arm")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.attempts < 1:
        parser.error("--attempts: give at least 1")
    measured = measure(given.attempts, given.seed)
    print(json.dumps(measured, indent=2, sort_keys=True) if given.json else table(measured))


if __name__ == "__main__":
    main()
