"""`python -m llmagentos.fleet.node`: the node agent as `llmctl up` starts it. By hand: `llmctl node join`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from llmagentos.core import log, tracing
from llmagentos.core.config import load
from llmagentos.core.errors import LLMAgentOSError
from llmagentos.fleet.node.agent import Options, run


def main(arguments: list[str] | None = None) -> int:
    """Run until told to stop; the exit code."""
    options = _options(arguments)
    try:
        config = load().config if os.environ.get("LLMAGENTOS_CONFIG") else None
        log.configure(process="node", level=config.log.level if config else "info")
        if otlp := config.telemetry.otlp if config else os.environ.get("LLMAGENTOS_OTLP"):
            os.environ["LLMAGENTOS_OTLP"] = otlp  # for the modules
            tracing.configure(process="node", endpoint=otlp)
        asyncio.run(run(options))
    except LLMAgentOSError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    finally:
        tracing.shutdown()
    return 0


def _options(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(prog="python -m llmagentos.fleet.node", description="The node agent.")
    parser.add_argument("--state", type=Path, required=True, help="directory of its own state")
    parser.add_argument("--server", required=True, help="origin of the server, e.g. https://host:7080")
    parser.add_argument("--ca", type=Path, help="certificate of the CA that signed the server's")
    parser.add_argument("--join-token-file", type=Path, help="file with a one-time token; - for stdin")
    parser.add_argument("--name", help="the node's name; without it the host's")
    parser.add_argument("--metrics", default="127.0.0.1:0", help="where /metrics is served")
    parser.add_argument("--join-only", action="store_true", help="become a node and end")
    given = parser.parse_args(arguments)
    return Options(
        given.state, given.server, given.ca, given.join_token_file, given.name, given.metrics, given.join_only
    )


if __name__ == "__main__":
    sys.exit(main())
