"""Whether a node takes jobs: the states and what leads from one to the next.

                cordon              drain                 emptied
    open ─────────────► cordoned ─────────► draining ─────────────► drained
      ◄─────────────────────── uncordon, from any of them

A cordoned node gets no further job; the one it works on goes on, and so do its modules. A draining one also stops
its modules, and is drained when no job and no module runs on it. What is queued for it waits.
"""

from __future__ import annotations

from typing import Literal

from llmagentos.api.nodes import Availability
from llmagentos.core.errors import Conflict

Change = Literal["cordon", "uncordon", "drain", "emptied"]

TABLE: dict[Change, dict[Availability, Availability]] = {
    "cordon": {"open": "cordoned", "cordoned": "cordoned", "draining": "cordoned", "drained": "cordoned"},
    "uncordon": {"open": "open", "cordoned": "open", "draining": "open", "drained": "open"},
    "drain": {"open": "draining", "cordoned": "draining", "draining": "draining", "drained": "drained"},
    "emptied": {"draining": "drained", "drained": "drained"},
}


def step(state: Availability, change: Change) -> Availability:
    """The state after `change`. Raises `Conflict` when it does not lead anywhere from `state`."""
    try:
        return TABLE[change][state]
    except KeyError:
        raise Conflict(f"a node that is {state} cannot be {change}") from None
