"""What the server does beside answering."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.requests import Request

from llmagentos.core.config.schema import Tls
from llmagentos.core.errors import ConfigError, InvalidInput
from llmagentos.security.identity import Permission
from llmagentos.server.app import _prune
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.main import require_usable
from llmagentos.server.respond import _body
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


def test_a_body_that_is_nested_too_deep_is_bad_input() -> None:
    async def handler(call: Call) -> None:
        raise AssertionError(call.body)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"a":' * 5000, "more_body": False}

    endpoint = Endpoint("POST", "/x", Permission.SYSTEM_READ, handler, body=dict)
    request = Request({"type": "http", "method": "POST", "path": "/x", "headers": []}, receive)
    with pytest.raises(InvalidInput, match="nested too deep"):
        asyncio.run(_body(request, endpoint, 1_000_000))


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    with pytest.raises(ConfigError, match=r"^server.tls.cert: .*cert.pem: cannot be read: No such file or directory"):
        require_usable(Tls(str(cert), str(key)))
    cert.write_text("nonsense")
    with pytest.raises(ConfigError, match=r"^server.tls.key: .*key.pem: cannot be read"):
        require_usable(Tls(str(cert), str(key)))
    key.write_text("nonsense")
    with pytest.raises(ConfigError, match=r"^server.tls: .*cert.pem and .*key.pem cannot be used"):
        require_usable(Tls(str(cert), str(key)))
