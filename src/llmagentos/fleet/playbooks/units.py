"""Which modules a playbook puts on its nodes, as far as its text says so."""

from __future__ import annotations

import re
from collections.abc import Mapping

MAX_UNITS = 64
_UNIT = re.compile(rb"\{\{\s*llmagentos_modules_dir\s*\}\}/([A-Za-z0-9][A-Za-z0-9._-]{0,62})\.ya?ml\b")


def units(files: Mapping[str, bytes]) -> list[str]:
    """Names of the module units that files mention by path: `{{ llmagentos_modules_dir }}/NAME.yaml`."""
    found = {name.decode() for content in files.values() for name in _UNIT.findall(content)}
    return sorted(found)[:MAX_UNITS]
