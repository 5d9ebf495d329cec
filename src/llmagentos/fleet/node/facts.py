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
MAX_GPUS = 64


def collect(state: Path) -> Facts:
    """The facts of this machine; `state` is on the disk that counts."""
    system = _release()
    return Facts(
        hostname=socket.gethostname()[:255],
        version=_version("llmagentos"),
        os=system.get("PRETTY_NAME", platform.platform())[:255],
        os_id=system.get("ID", platform.system().lower())[:255],
        os_like=system.get("ID_LIKE", "")[:255],
        os_version=system.get("VERSION_ID", "")[:255],
        kernel=f"{platform.system()} {platform.release()}"[:255],
        architecture=platform.machine(),
        cpus=_cpus(),
        memory_bytes=psutil.virtual_memory().total,
        disk_bytes=psutil.disk_usage(str(state)).total,
        python=platform.python_version(),
        ansible=_version("ansible-core"),
        gpus=_gpus(),
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


def _release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:  # not Linux, or a very bare one
        return {}


def _gpus() -> list[str]:
    """NVIDIA's accelerators, by their driver's own list: cheap, and there without any library."""
    found = []
    for card in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        try:
            lines = card.read_text("utf-8", "replace").splitlines()
        except OSError:
            continue
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("Model:")), "NVIDIA")
        found.append(model[:255])
    return found[:MAX_GPUS]


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
