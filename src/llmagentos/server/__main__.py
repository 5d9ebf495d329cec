"""`python -m llmagentos.server`: see `server.main`."""

import sys

from llmagentos.server.main import main

sys.exit(main())
