"""A2A's routes."""

from __future__ import annotations

from typing import Any, cast

from llmagentos.server.routes import a2a


def test_who_begins_and_stops_tasks_is_in_the_audit_log() -> None:
    """As for runs that are begun and stopped over the API."""
    changing = [each for each in a2a.endpoints(cast("Any", None), "1.0") if each.method == "POST"]
    assert len(changing) == 8
    assert all(each.audited for each in changing)
