"""Writes the part of requirements.lock that a node agent needs, for servers to hand out: versions and hashes.

It goes into the package (src/llmagentos/fleet/requirements-node.lock); `--check` only says whether it is up to date.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "src" / "llmagentos" / "fleet" / "requirements-node.lock"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def normal(name: str) -> str:
    """As PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def entries() -> dict[str, str]:
    """The lines of each package in requirements.lock."""
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", (ROOT / "requirements.lock").read_text()):
        name = _NAME.match(block)
        if name is not None:
            lines = [line for line in block.splitlines() if not line.strip().startswith("#")]
            found[normal(name[0])] = found.get(normal(name[0]), "") + "\n".join(lines) + "\n"
    return found


def needed(known: dict[str, str]) -> set[str]:
    """What `llmagentos[node]` needs, directly or not, on any system."""
    wanted, waiting = set[str](), ["llmagentos"]
    while waiting:
        name = waiting.pop()
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # of another system
            lines = []
        for line in lines:
            requirement, _, marker = line.partition(";")
            extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", marker)
            if extra is not None and not (name == "llmagentos" and extra[1] == "node") and extra[1] != "crypto":
                continue
            match = _NAME.match(requirement.strip())
            package = normal(match[0]) if match else ""
            if package in known and package not in wanted:
                wanted.add(package)
                waiting.append(package)
    return wanted


def main(arguments: list[str]) -> int:
    """Write or check the file."""
    known = entries()
    text = "".join(known[name] for name in sorted(needed(known)))
    if TARGET.exists() and TARGET.read_text() == text:
        return 0
    if "--check" in arguments:
        print(f"{TARGET.relative_to(ROOT)} is out of date: python scripts/lock_node.py", file=sys.stderr)  # noqa: T201
        return 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
