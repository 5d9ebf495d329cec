"""`salt-call --local state.apply`: called with directories of the job's own, its JSON read.

https://docs.saltproject.io/en/latest/ref/states/highstate.html
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from llmagentos.core.files import write_whole
from llmagentos.fleet.node.foreign.results import Outcome, Result
from llmagentos.fleet.node.foreign.spec import Call, Spec, inside, tool

_PLACES = ("/opt/saltstack/salt/salt-call", "/usr/local/bin/salt-call")
_NOT_RUN = "One or more requisite failed"
_INTERNAL = ("__run_num__", "__sls__", "__id__", "__state_ran__", "start_time", "duration", "skip_watch")
_SUFFIX = ".sls"


def call(spec: Spec, directory: Path) -> Call:
    """How it is run: the highstate of `top.sls`, one state, or all states of the directory. Raises `NoTool`."""
    target = inside(directory / "bundle", spec.path)
    root = target.parent if target.is_file() else target
    own = directory / "salt"
    own.mkdir(exist_ok=True, mode=0o700)
    config: dict[str, Any] = {
        "file_client": "local",
        "id": spec.host,
        "file_roots": {"base": [str(root)]},
        "pillar_roots": {"base": [str(root / "pillar")]},
        "cachedir": str(own / "cache"),
        "pki_dir": str(own / "pki"),
        "sock_dir": str(own / "run"),
        "log_file": str(own / "log"),
        "pidfile": str(own / "pid"),
    }
    if spec.variables:  # as pillar that comes last and so wins; not as an argument, which everybody here could read
        variables = own / "variables.json"
        write_whole(variables, msgspec.json.encode(spec.variables))
        config["ext_pillar"] = [{"cmd_json": f"cat {shlex.quote(str(variables))}"}]
    write_whole(own / "minion", msgspec.json.encode(config))  # JSON is YAML
    argv = [tool("salt-call", *_PLACES), "--local", "--config-dir", str(own), "--out", "json", "--no-color"]
    argv += ["--retcode-passthrough", "--log-level", "debug" if spec.verbosity > 2 else "warning"]
    argv += ["state.apply", *_names(target, root), *["test=True"] * spec.check]
    return Call(argv)


def _names(target: Path, root: Path) -> list[str]:
    if target.is_file():
        return [target.name.removesuffix(_SUFFIX)]
    if (root / "top.sls").is_file():
        return []
    names = sorted(path.name.removesuffix(_SUFFIX) for path in root.glob(f"*{_SUFFIX}"))
    names += sorted(path.parent.name for path in root.glob(f"*/init{_SUFFIX}") if path.parent.name != "pillar")
    return [",".join(names)]


def outcome(spec: Spec, directory: Path, code: int, output: str) -> Outcome:
    """What it did, from the JSON that it printed."""
    found = read(output)
    if not found.results and found.error is None and code:
        return Outcome(error=f"salt-call ended with code {code}")
    return found


def read(output: str) -> Outcome:
    """The results in what `salt-call --out json` printed, whatever it said before and after."""
    begin = re.search(r"^\{", output, re.M)
    if begin is None:
        return Outcome(error=output.strip()[-2000:] or "salt-call told nothing")
    end = output.rfind("\n}", begin.start())
    try:
        local = msgspec.json.decode(output[begin.start() : end + 2 if end > 0 else None])["local"]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        return Outcome(error=f"what salt-call told cannot be read: {error}")
    if isinstance(local, list):
        return Outcome(error="\n".join(map(str, local)))
    if not isinstance(local, dict):
        return Outcome(error=str(local))
    states = [(key, state) for key, state in local.items() if isinstance(state, dict)]
    states.sort(key=lambda found: _number(found[1]))
    return Outcome([_result(key, state) for key, state in states])


def _number(state: Mapping[str, Any]) -> int:
    found = state.get("__run_num__")
    return found if isinstance(found, int) else 0


def _result(key: str, state: Mapping[str, Any]) -> Result:
    parts = key.split("_|-")
    kind = f"{parts[0]}.{parts[-1]}" if len(parts) > 1 else key
    identity = str(state.get("__id__") or (parts[1] if len(parts) > 1 else key))
    changes = state.get("changes")
    diffs = [changes["diff"]] if isinstance(changes, dict) and isinstance(changes.get("diff"), str) else []
    shown = {name: value for name, value in state.items() if name not in _INTERNAL and name != "result"}
    shown["msg"] = str(shown.pop("comment", ""))
    shown["sls"] = state.get("__sls__")
    duration = state.get("duration")
    seconds = float(duration) / 1000 if isinstance(duration, int | float) else None
    return Result(f"{kind} {identity}", kind, _status(state), shown, [text for text in diffs if "\n" in text], seconds)


def _status(state: Mapping[str, Any]) -> Literal["ok", "changed", "failed", "skipped"]:
    result = state.get("result")
    if result is False:
        return "skipped" if str(state.get("comment", "")).startswith(_NOT_RUN) else "failed"
    if state.get("skip_watch"):
        return "skipped"
    return "changed" if result is None or state.get("changes") else "ok"
