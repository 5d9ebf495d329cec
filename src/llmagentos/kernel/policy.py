"""Which stages decide on the order of calls; each can be switched.

Strict priority, then weighted fairness between tenants, then the run with the least service, then the
order of arrival. With all stages off that is first come, first served.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal


def geometric(first: float, factor: float, count: int) -> tuple[float, ...]:
    """`count` bounds, each `factor` times the one before: a scale without a typical size."""
    return tuple(first * factor**i for i in range(count))


@dataclass(frozen=True, slots=True)
class Policy:
    """A frozen choice of stages. Service is counted in weighted tokens."""

    name: str
    priorities: bool = False
    """Strict order of nice values."""
    fair: bool = False
    """Between tenants: virtual token counters (VTC, arXiv 2401.00588)."""
    programs: Literal["off", "plas", "atlas"] = "off"
    """Inside a tenant: least attained service of a run, summed (plas) or along its longest path (atlas;
    both arXiv 2502.13965)."""
    levels: tuple[float, ...] = geometric(128, 8, 3)
    """Upper bounds of the queues by attained service; inside one it is first come, first served."""
    beta: float | None = 10.0
    """A run that stood still for `beta` times as long as it was served returns to the first queue."""
    weight_in: float = 1.0
    weight_out: float = 2.0

    def level(self, attained: float) -> int:
        """The queue for a run that had so much service; 0 goes first."""
        return bisect_right(self.levels, attained)


FCFS = Policy("fcfs")
POLICIES = {
    policy.name: policy
    for policy in (
        FCFS,
        Policy("priority", priorities=True),
        Policy("vtc", priorities=True, fair=True),
        Policy("plas", priorities=True, programs="plas"),
        Policy("atlas", priorities=True, programs="atlas"),
        Policy("fair", priorities=True, fair=True, programs="plas"),
    )
}
