"""Writes src/llmagentos/fleet/playbooks/{known,options}.json from the installed ansible-core: the words of playbooks.

Names of task modules (its own, and the short names that lead to collections), the keywords of plays, blocks,
tasks and handlers; and the options of its own task modules. Playbooks are checked with it without importing ansible.
`--add` only adds the options that another release has: run it with each that is supported.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

ROOM = Path(__file__).parents[1] / "src/llmagentos/fleet/playbooks"
TARGET = ROOM / "known.json"
# They take any option, hand theirs on to others, or have none.
ANY = frozenset(
    {"add_host", "gather_facts", "import_playbook", "import_role", "import_tasks", "include_role", "include_tasks"}
    | {"meta", "package", "service", "set_fact"}
)
UNDOCUMENTED = frozenset({"async_wrapper", "yum"})


def own(package: str) -> set[str]:
    """Names of the plugins that ansible-core has in `package`."""
    names = (path.name for path in files(package).iterdir())
    return {name.removesuffix(".py") for name in names if name.endswith(".py") and not name.startswith("_")}


class Captured(Exception):
    """Instead of a module that begins to work: what it takes."""

    def __init__(self, spec: dict[str, Any]) -> None:
        super().__init__()
        self.spec = spec


def taken(name: str) -> dict[str, Any]:
    """The argument specification of a module, as its own code gives it; empty when it has none."""
    from ansible.module_utils import basic

    def init(_: Any, argument_spec: dict[str, Any], *__: Any, add_file_common_args: bool = False, **___: Any) -> None:
        common = basic.FILE_COMMON_ARGUMENTS if add_file_common_args else {}
        raise Captured({**common, **argument_spec})

    basic.AnsibleModule.__init__ = init
    try:
        module = importlib.import_module(f"ansible.modules.{name}")
        module.main()
    except Captured as found:
        return found.spec
    except (Exception, SystemExit):
        return {}
    return {}


def documented(name: str) -> dict[str, Any]:
    """The options of a module as it documents them."""
    command = [str(Path(sys.executable).with_name("ansible-doc")), "-t", "module", "--json", f"ansible.builtin.{name}"]
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        return {}
    return json.loads(done.stdout)[f"ansible.builtin.{name}"]["doc"].get("options") or {}


def options(name: str) -> dict[str, Any]:
    """What a module takes: names and other names, what it requires, choices of text."""
    told, spec = documented(name), taken(name)
    found: dict[str, Any] = {"names": set(), "required": [], "choices": {}}
    for option in sorted({*told, *spec}):
        one = {**told.get(option, {}), **spec.get(option, {})}
        also = sorted({*(told.get(option, {}).get("aliases") or ()), *(spec.get(option, {}).get("aliases") or ())})
        if option != "free_form":
            found["names"] |= {option, *also}
        required = (spec.get(option) or {}).get("required") if spec else one.get("required")
        if required and option != "free_form" and not option.startswith("_"):  # those are given by an action
            found["required"].append([option, *also])
        choices = one.get("choices")
        if choices and one.get("type", "str") == "str":
            found["choices"][option] = sorted(map(str, choices))
    return {**found, "names": sorted(found["names"])}


def merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What one of two releases takes; required is what both require."""
    found = dict(one)
    for name, told in other.items():
        known = one.get(name, told)
        choices = {
            option: sorted({*known["choices"].get(option, []), *told["choices"].get(option, [])})
            for option in known["choices"].keys() & told["choices"].keys()
        }
        found[name] = {
            "names": sorted({*known["names"], *told["names"]}),
            "required": [each for each in known["required"] if each in told["required"]],
            "choices": choices,
        }
    return found


def main() -> int:
    """Write the files."""
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
    told = {name: options(name) for name in found["builtin"] if name not in ANY and name not in UNDOCUMENTED}
    told["yum"] = told["dnf"]
    if sys.argv[1:] == ["--add"]:
        known = json.loads((ROOM / "options.json").read_text())
        (ROOM / "options.json").write_text(json.dumps(merged(known, told), indent=1, sort_keys=True) + "\n")
        return 0
    TARGET.write_text(json.dumps(found, indent=1) + "\n")
    (ROOM / "options.json").write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")
    sys.stdout.write(f"{TARGET}: {len(found['builtin'])} modules, {len(found['routed'])} routed names\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
