"""Writes src/llmagentos/fleet/playbooks/known.json from the installed ansible-core: the words of playbooks.

Names of task modules (its own, and the short names that lead to collections), and the keywords of
plays, blocks, tasks and handlers. The server checks playbooks with it without importing ansible.
"""

from __future__ import annotations

import json
import sys
import warnings
from importlib.resources import files
from pathlib import Path

import yaml

TARGET = Path(__file__).parents[1] / "src/llmagentos/fleet/playbooks/known.json"


def own(package: str) -> set[str]:
    """Names of the plugins that ansible-core has in `package`."""
    names = (path.name for path in files(package).iterdir())
    return {name.removesuffix(".py") for name in names if name.endswith(".py") and not name.startswith("_")}


def main() -> int:
    """Write the file."""
    warnings.simplefilter("ignore")
    import ansible
    from ansible.playbook.block import Block
    from ansible.playbook.handler import Handler
    from ansible.playbook.play import Play
    from ansible.playbook.role.include import RoleInclude
    from ansible.playbook.task import Task

    runtime = yaml.safe_load(files("ansible.config").joinpath("ansible_builtin_runtime.yml").read_text("utf-8"))
    routed = runtime["plugin_routing"]["modules"] | runtime["plugin_routing"]["action"]
    builtin = own("ansible.modules") | own("ansible.plugins.action") - {"normal"}
    classes = {"play": Play, "block": Block, "task": Task, "handler": Handler, "role": RoleInclude}
    found = {
        "ansible_core": ansible.__version__,
        # `yum` is an alias of dnf that people write like a module of its own.
        "builtin": sorted(builtin | {"yum"}),
        "routed": sorted(name for name in routed if "." not in name and name not in builtin),
        "keywords": {name: sorted(kind.fattributes) for name, kind in classes.items()},
    }
    TARGET.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(f"{TARGET}: {len(found['builtin'])} modules, {len(found['routed'])} routed names\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
