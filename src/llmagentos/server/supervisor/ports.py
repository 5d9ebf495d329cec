"""Whether the server's address is free, and who has it when it is not."""

from __future__ import annotations

import errno
import socket

import psutil

from llmagentos.core.errors import OperatorError


class PortTaken(OperatorError):
    """Another process listens on the address."""

    code = "port_taken"


class AddressUnusable(OperatorError):
    """This machine cannot listen on the address."""

    code = "address_unusable"
    exit_code = 2


def require_free(host: str, port: int) -> None:
    """Raises `PortTaken` or `AddressUnusable` when nothing could listen on `host`:`port` now."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        raise _refused(host, port, error) from None


def _refused(host: str, port: int, error: OSError) -> OperatorError:
    where = f"{host}:{port}"
    change = (
        "choose another: `server: {address: HOST:PORT}` in llmagentos.yaml, or LLMAGENTOS_SERVER__ADDRESS=HOST:PORT"
    )
    if error.errno == errno.EADDRINUSE:
        owner = listener(port)
        return PortTaken(f"{where} is taken by {owner or 'another process (of another user)'}", hint=change)
    if error.errno == errno.EACCES:
        return AddressUnusable(f"{where}: ports below 1024 need root", hint=change)
    return AddressUnusable(f"cannot listen on {where}: {error.strerror or error}", hint=change)


def listener(port: int) -> str | None:
    """The process that listens on `port`, as `process 123 (nginx)`; None when this user may not see it."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.pid and _port(connection.laddr) == port:
            try:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
            except psutil.Error:
                return f"process {connection.pid}"
    return None


def _port(address: object) -> int | None:
    return getattr(address, "port", None)  # psutil gives an empty tuple for an address it cannot name
