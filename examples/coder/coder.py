"""The code helper's tool as a module: the service `sandbox` runs a function with its tests.

Where Linux permits no namespaces it refuses, because the code could read what this process can, its token
included; `--without-namespaces` runs it all the same, for code that somebody has read.
"""

from __future__ import annotations

import sys
from threading import BoundedSemaphore

import sandbox

from llmagentos import Module, Service, idempotent

AT_ONCE = 2
MAX_CODE = 64 * 1024  # characters; below what one argument of a process may have


class SandboxService(Service):
    """Runs code that nobody has read, with its tests, in a process that can do little."""

    def __init__(self, *, unconfined: bool = False) -> None:
        self._unconfined = unconfined
        self._turn = BoundedSemaphore(AT_ONCE)

    @idempotent
    def check(self, code: str, tests: str) -> sandbox.Check:
        """Run `tests` (Python: functions `test_...` with `assert`) on the functions that `code` (Python) defines.

        There are no packages beyond the standard library, no network and no files. `outcome` is `passed` only when
        there was a test and none failed; else `output` ends with what went wrong.
        """
        for name, text in (("code", code), ("tests", tests)):
            if len(text.encode()) > MAX_CODE or "\0" in text:
                raise ValueError(f"{name}: text of at most {MAX_CODE} bytes is run")
        if not self._unconfined and not sandbox.namespaces():
            raise PermissionError("namespaces are not permitted here: the code could read this machine's files")
        with self._turn:
            return sandbox.check(code, tests)


def main() -> None:
    """Serve until told to stop."""
    unconfined = "--without-namespaces" in sys.argv[1:]
    if not unconfined and not sandbox.namespaces():
        sys.stderr.write("warning: namespaces are not permitted here, so nothing is run\n")
    module = Module("coder")
    module.register_service(SandboxService(unconfined=unconfined), name="sandbox")
    module.start()


if __name__ == "__main__":
    main()
