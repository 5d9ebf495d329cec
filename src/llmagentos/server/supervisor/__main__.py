"""`python -m llmagentos.server.supervisor FD`: the supervisor of `llmctl up --detach`.

Reads the configuration as every process does (LLMAGENTOS_CONFIG, LLMAGENTOS_STATE) and writes one
JSON document to the inherited file descriptor FD: `Ready`, or the problem that kept it from starting.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress

import msgspec

from llmagentos.api import problem
from llmagentos.core.config import load
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.server.supervisor.supervisor import Ready, Supervisor


def main(descriptor: int) -> int:
    """Run until stopped; the exit code."""
    os.set_inheritable(descriptor, False)

    def tell(content: bytes) -> None:
        with suppress(BrokenPipeError):  # `llmctl up --detach` was killed: what it asked for stays
            os.write(descriptor, content)
        os.close(descriptor)

    told = False

    def ready(what: Ready) -> None:
        nonlocal told
        told = True
        tell(b'{"ready":' + msgspec.json.encode(what) + b"}")

    try:
        asyncio.run(Supervisor(load(), terminal=None).run(ready))
    except LLMAgentOSError as error:
        if not told:
            tell(b'{"failed":' + problem.encode(error) + b"}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
