"""The inside of the sandbox: makes the place, gives away every right, runs the code with its tests.

Started by sandbox.py, in namespaces of its own where they are permitted; reads what to run from standard
input. Exits with the status of the tests, 128 + the signal that ended them, or 125 when the place cannot
be made. `--try` only says (by its status) whether it can.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
KEPT = 0xF | 1024 | 2048  # flags of a mount that a remount in a user namespace may not take away
UNUSABLE = 125
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38

RUNNER = """
import ast, sys
code, tests = sys.argv[1:]
names = {"__name__": "solution"}
exec(compile(code, "solution.py", "exec"), names)
exec(compile(tests, "test_solution.py", "exec"), names)
found = [each for name, each in list(names.items()) if name.startswith("test_") and callable(each)]
for each in found:
    each()
sys.stdout.flush()
count = len(found) + sum(isinstance(each, ast.Assert) for each in ast.parse(tests).body)
print(f"\\ntests passed: {count}", flush=True)
"""


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """mount(2). Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode() or None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def enclose(disk: int) -> None:
    """Make a root of a few read-only directories and a small `/work`, and go there. Raises `OSError`."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)  # nothing that is mounted here is seen outside
    root = "/tmp"  # noqa: S108  covered by a file system of our own
    mount("none", root, "tmpfs", MS_NOSUID | MS_NODEV, f"size={disk},nr_inodes=2000,mode=755")
    for path in map(Path, ("/usr", "/lib", "/lib64", sys.base_prefix)):
        inside = Path(f"{root}{path}")
        if path.is_dir() and not inside.exists():
            inside.mkdir(parents=True)
            mount(str(path), str(inside), "", MS_BIND | MS_REC)
            mount("none", str(inside), "", MS_REMOUNT | MS_BIND | MS_RDONLY | os.statvfs(path).f_flag & KEPT)
    work = Path(root, "work")
    work.mkdir()
    work.chmod(0o777)  # whoever runs in there is somebody else
    os.chroot(root)
    os.chdir("/work")


def limit(spec: dict[str, Any]) -> None:
    """The limits of this process and its children."""
    for what, most in (
        (resource.RLIMIT_CPU, (int(spec["cpu_s"]), int(spec["cpu_s"]) + 1)),
        (resource.RLIMIT_AS, (int(spec["memory"]),) * 2),
        (resource.RLIMIT_FSIZE, (int(spec["file"]),) * 2),
        (resource.RLIMIT_NOFILE, (int(spec["open_files"]),) * 2),
        (resource.RLIMIT_CORE, (0, 0)),
    ):
        resource.setrlimit(what, most)


def give_up_rights(processes: int, user: int | None) -> None:
    """Be nobody, with few processes and no right that could be won back."""
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(64):  # numbers that this kernel does not have are refused, which is as good
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    if user:  # the machine's own root is not counted: be a user that nobody else is
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "the kernel has no no_new_privs")


def in_user_namespace() -> bool:
    """Whether this root is one of a user namespace only: then it cannot become another user, and is counted."""
    return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


def run(spec: dict[str, Any], *, enclosed: bool) -> int:
    """Run the tests in a child, because signals that end others do not end the first process of a namespace."""
    child = os.fork()
    if child == 0:
        try:
            limit(spec)
            if enclosed:
                give_up_rights(int(spec["processes"]), spec["user"])
            argv = [sys.executable, "-I", "-S", "-c", RUNNER, spec["code"], spec["tests"]]
            os.execve(sys.executable, argv, {})  # noqa: S606  the point of it all
        except OSError as error:
            sys.stderr.write(f"the sandbox cannot be made: {error}\n")
            sys.stderr.flush()
        os._exit(UNUSABLE)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def main() -> int:
    """The exit status."""
    if "--try" in sys.argv:
        enclose(1024 * 1024)
        return 0
    spec = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    enclosed = spec["directory"] is None
    if enclosed:
        if in_user_namespace():
            spec["user"] = None
        enclose(int(spec["disk"]))
    else:
        os.chdir(spec["directory"])
    status = run(spec, enclosed=enclosed)
    return 128 - status if status < 0 else status


if __name__ == "__main__":
    sys.exit(main())
