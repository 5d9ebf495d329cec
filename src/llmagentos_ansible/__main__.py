# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""`python -m llmagentos_ansible JOBDIR` (see `runner`) and `--warm HOME PADDING` (see `warm`)."""

import sys
from pathlib import Path

from llmagentos_ansible import runner

if not sys.flags.safe_path:
    del sys.path[0]  # the working directory, where a playbook's files may be called as modules are

runner.in_utf8()
if sys.argv[1:2] == ["--warm"] and len(sys.argv) == 4:
    from llmagentos_ansible import warm

    warm.main(sys.argv[2])
elif len(sys.argv) == 2:
    runner.main(Path(sys.argv[1]))
else:
    sys.exit("usage: python -m llmagentos_ansible JOBDIR")
