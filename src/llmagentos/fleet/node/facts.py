"""What this machine is, and how it is doing."""

from __future__ import annotations

import getpass
import os
import platform
import socket
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from llmagentos.api.nodes import Facts

MAX_ADDRESSES = 64


def collect(state: Path) -> Facts:
    """The facts of this machine; `state` is on the disk that counts."""
    return Facts(
        hostname=socket.gethostname()[:255],
        version=_version("llmagentos"),
        os=_os()[:255],
        kernel=f"{platform.system()} {platform.release()}"[:255],
        architecture=platform.machine(),
        cpus=_cpus(),
        memory_bytes=psutil.virtual_memory().total,
        disk_bytes=psutil.disk_usage(str(state)).total,
        python=platform.python_version(),
        ansible=_version("ansible-core"),
        addresses=_addresses(),
        boot=psutil.boot_time() // 60 * 60,  # it wobbles with the clock: minutes are enough to see a reboot
        user=_user(),
    )


def load() -> list[float]:
    """The load averages over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def _cpus() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        return os.cpu_count() or 1


def _os() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.platform()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _addresses() -> list[str]:
    found = {
        address.address.partition("%")[0]
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family in (socket.AF_INET, socket.AF_INET6)
    }
    return sorted(found - {"127.0.0.1", "::1"})[:MAX_ADDRESSES]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return str(os.geteuid())
