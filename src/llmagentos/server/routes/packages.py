"""The package itself: what install.sh fetches, and the versions that nodes' agents become."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from starlette.responses import Response

from llmagentos.api.nodes import Upgrade, UpgradeReport, UpgradeRequest, WheelInfo
from llmagentos.core.errors import NotFound
from llmagentos.fleet.package import LOCK, MAX_WHEEL
from llmagentos.fleet.upgrades import Upgrades
from llmagentos.security.identity import Permission
from llmagentos.server.endpoint import Call, Endpoint
from llmagentos.server.routes.jobs import node_name

SUMS = "SHA256SUMS"
LAUNCHER = "launch.py"


def endpoints(upgrades: Upgrades, launcher: Callable[[], bytes]) -> list[Endpoint]:
    """`launcher` is the program that keeps a node agent running."""
    return [_files(upgrades, launcher), *_wheels(upgrades), *_selves(upgrades)]


def _files(upgrades: Upgrades, launcher: Callable[[], bytes]) -> Endpoint:
    async def download(call: Call) -> Response:
        own = await upgrades.own()
        files = {own.file: own.content, LOCK.name: LOCK.read_bytes(), LAUNCHER: launcher()}
        sums = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in files.items())
        content = {**files, SUMS: sums.encode()}.get(call.path["file"])
        if content is None:
            raise NotFound(f"there is no {call.path['file'][:80]!r}", hint=f"{SUMS} names the files")
        return Response(content, media_type="application/octet-stream")

    return Endpoint(
        "GET",
        "/api/v1/nodes/join/package/{file}",
        Permission.NODES_JOIN,
        download,
        summary="What install.sh puts on a machine: SHA256SUMS, and the files that it names",
    )


def _wheels(upgrades: Upgrades) -> list[Endpoint]:
    async def upload(call: Call) -> WheelInfo:
        wheel = await upgrades.keep(call.path["digest"], call.body)
        return WheelInfo(wheel.digest, wheel.version)

    async def want(call: Call) -> Upgrade:
        return await upgrades.want(call.path["name"], call.body.digest)

    write = Permission.NODES_UPGRADE
    return [
        Endpoint(
            "PUT",
            "/api/v1/wheels/{digest}",
            write,
            upload,
            body=bytes,
            returns=WheelInfo,
            summary="Store a version of the package (a wheel) under its SHA-256",
            max_body=MAX_WHEEL,
            audited=True,
        ),
        Endpoint(
            "POST",
            "/api/v1/nodes/{name}/upgrade",
            write,
            want,
            body=UpgradeRequest,
            returns=Upgrade,
            summary="Have a node's agent become a stored version, or the server's own",
            audited=True,
        ),
    ]


def _selves(upgrades: Upgrades) -> list[Endpoint]:
    async def download(call: Call) -> Response:
        content = await upgrades.wheel_for(node_name(call.identity), call.path["digest"])
        return Response(content, media_type="application/octet-stream")

    async def report(call: Call) -> None:
        await upgrades.report(node_name(call.identity), call.body)

    work = Permission.NODE_WORK
    return [
        Endpoint(
            "GET", "/api/v1/nodes/self/wheels/{digest}", work, download, summary="What the calling node shall become"
        ),
        Endpoint(
            "PUT",
            "/api/v1/nodes/self/upgrade",
            work,
            report,
            body=UpgradeReport,
            summary="How the calling node's upgrade went",
        ),
    ]
