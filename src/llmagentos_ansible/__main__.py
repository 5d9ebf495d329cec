# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""`python -m llmagentos_ansible JOBDIR`: see `runner`."""

import sys
from pathlib import Path

from llmagentos_ansible.runner import main

if len(sys.argv) != 2:
    sys.exit("usage: python -m llmagentos_ansible JOBDIR")
main(Path(sys.argv[1]))
