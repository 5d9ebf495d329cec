"""Hosts on a network of their own: network namespaces of Linux (ip-netns(8)) behind a bridge of this machine."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass


class NotPermitted(Exception):
    """This machine lets us make no network namespaces; says why."""


@dataclass(frozen=True, slots=True)
class Host:
    """A namespace whose only way out is one link, which can be cut."""

    name: str
    address: str
    link: str
    bridge: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What goes before a command that runs on this host; the process stays the same one."""
        return ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        """Nothing comes through in either direction; nobody is told."""
        _ip("link", "set", self.link, "down")

    def heal(self) -> None:
        """All comes through again."""
        _ip("neigh", "flush", "dev", self.bridge, "nud", "permanent")
        _ip("link", "set", self.link, "up")

    def deafen(self) -> None:
        """What it sends comes through, what is sent to it is lost: it goes to a hardware address that is nobody's."""
        nobody = "02:00:00:00:00:ff"
        _ip("neigh", "replace", self.address, "lladdr", nobody, "dev", self.bridge, "nud", "permanent")


class Network:
    """A bridge with an `address` of this machine, and hosts behind it; a context manager, which removes it all.

    Raises `NotPermitted` where that cannot be had.
    """

    def __init__(self) -> None:
        if sys.platform != "linux" or shutil.which("ip") is None:
            raise NotPermitted("network namespaces need Linux and iproute2 (scripts/test-tools.sh)")
        if os.geteuid() != 0:
            raise NotPermitted("network namespaces need root")
        self._bridge = f"lao{random.randrange(16**6):06x}"
        # 198.18.0.0/15 is for tests of networks (RFC 2544): nobody's real addresses are hidden.
        self._subnet = f"198.18.{random.randrange(1, 255)}"
        self.address = f"{self._subnet}.1"
        self._hosts: list[Host] = []

    def __enter__(self) -> Network:
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("address", "add", f"{self.address}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            self.host("probe")
        except subprocess.CalledProcessError as error:
            self.__exit__()
            raise NotPermitted(f"`{' '.join(error.cmd)}` is not possible here: {error.stderr.strip()}") from None
        return self

    def __exit__(self, *_: object) -> None:
        for host in self._hosts:
            _ip("netns", "delete", host.name, check=False)
        for device in (*(host.link for host in self._hosts), self._bridge):
            _ip("link", "delete", device, check=False)

    def host(self, name: str) -> Host:
        """A new host."""
        number = len(self._hosts) + 2
        host = Host(f"{self._bridge}-{name}", f"{self._subnet}.{number}", f"{self._bridge}.{number}", self._bridge)
        self._hosts.append(host)
        _ip("netns", "add", host.name)
        _ip("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        _ip("link", "set", host.link, "master", self._bridge, "up")
        for command in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{host.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
        ):
            _ip("-n", host.name, *command)
        return host


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)
