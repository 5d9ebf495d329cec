"""What the server does beside answering."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from llmagentos.server.app import _prune
from llmagentos.storage.database import StorageUnavailable


def test_one_table_that_cannot_be_pruned_ends_neither_the_others_nor_the_server() -> None:
    async def main() -> None:
        done = asyncio.Event()

        async def fails() -> None:
            raise StorageUnavailable("away")

        async def works() -> None:
            done.set()

        pruning = asyncio.create_task(_prune(cast("Any", SimpleNamespace(prune=[fails, works]))))
        await asyncio.wait([pruning, asyncio.create_task(done.wait())], return_when=asyncio.FIRST_COMPLETED)
        assert done.is_set()
        assert not pruning.done()
        pruning.cancel()

    asyncio.run(main())
