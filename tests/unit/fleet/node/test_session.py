"""A node's session on a disk that is full."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from llmagentos.api import nodes
from llmagentos.core.state import StateUnusable
from llmagentos.fleet.node import keys
from llmagentos.fleet.node.insist import passing
from llmagentos.fleet.node.session import Session
from llmagentos.fleet.node.state import Identity, NodeDirectory
from llmagentos.security.certificates import CertificateAuthority


def test_a_number_that_cannot_be_reserved_is_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        directory, key = NodeDirectory(tmp_path / "node"), keys.generate()
        directory.prepare()
        certificate = CertificateAuthority(tmp_path).certify(keys.request(key, "n"), "n", days=1, now=time.time())
        directory.credential.write_bytes(keys.pem(key, certificate.pem))
        async with Session(directory, Identity("n", "http://127.0.0.1:1"), "http://127.0.0.1:1", None) as session:
            directory.counter.mkdir()  # it cannot be written
            with pytest.raises(StateUnusable) as told:
                await nodes.beat(session, nodes.Heartbeat())
            assert passing(told.value), "the node agent tries again"

    asyncio.run(main())
