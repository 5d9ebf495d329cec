"""`python -m llmagentos.fleet.node.foreign JOBDIR`: the runner of a job that is no playbook."""

import sys
from pathlib import Path

from llmagentos.fleet.node.foreign.program import main

if len(sys.argv) != 2:
    sys.exit("usage: python -m llmagentos.fleet.node.foreign JOBDIR")
main(Path(sys.argv[1]))
