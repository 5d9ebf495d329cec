"""Sort the catalogs in src/llmagentos/locale by key, one entry a line; `--check` only says what is out of order."""

from __future__ import annotations

import json
import sys
from pathlib import Path

LOCALES = Path(__file__).parent.parent / "src" / "llmagentos" / "locale"


def main(arguments: list[str]) -> int:
    unsorted = []
    for path in sorted(LOCALES.glob("*.json")):
        before = path.read_text("utf-8")
        after = json.dumps(json.loads(before), ensure_ascii=False, indent=2, sort_keys=True) + "\n"
        if before == after:
            continue
        unsorted.append(path.name)
        if "--check" not in arguments:
            path.write_text(after, "utf-8")
    if unsorted:
        print(f"{', '.join(unsorted)}: {'not sorted' if '--check' in arguments else 'sorted'}", file=sys.stderr)  # noqa: T201
    return 1 if unsorted and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
