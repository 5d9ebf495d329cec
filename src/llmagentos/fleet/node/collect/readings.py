"""Measures this machine, in node-exporter's names and units (github.com/prometheus/node_exporter).

Sent to the server are the CPU seconds as the mean of all processors under `cpu="all"`: a rate of 1 is the whole
machine busy, however many processors it has. Everything else is as node-exporter tells it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

from llmagentos.api.telemetry import header
from llmagentos.fleet.node.collect import gpu

MAX_MOUNTS, MAX_DEVICES = 64, 64
Reading = tuple[str, float]

_PSEUDO = frozenset(
    {"autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs"}
    | {"fusectl", "hugetlbfs", "mqueue", "nsfs", "overlay", "proc", "pstore", "ramfs", "rpc_pipefs", "securityfs"}
    | {"selinuxfs", "squashfs", "sysfs", "tmpfs", "tracefs"}
)
_REMOTE = ("nfs", "cifs", "smb", "fuse", "ceph", "glusterfs", "lustre", "9p", "afs")
PATIENCE_S = 2.0
"""With a file system of another machine; one that does not answer is left out until it does."""
_asked: dict[str, threading.Thread] = {}
_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


def read(*, each_cpu: bool = False) -> dict[str, float]:
    """All series with their values now; what the machine does not tell is left out. Blocks for some milliseconds."""
    found: dict[str, float] = {}
    for source in (_each_cpu if each_cpu else _cpu, _load, _memory, _disks, _filesystems, _network, _system, gpu.read):
        try:
            found.update(source())
        except (OSError, RuntimeError, psutil.Error):  # a value that the kernel does not give here
            continue
    return found


def render() -> str:
    """All series as Prometheus reads them from a node-exporter."""
    found: list[str] = []
    told = ""
    for name, value in sorted(read(each_cpu=True).items(), key=lambda item: (item[0].partition("{")[0], item[0])):
        family = name.partition("{")[0]
        if family != told:
            found.append(header(family))
            told = family
        found.append(f"{name} {value!r}\n")
    return "".join(found)


def series(name: str, **labels: str) -> str:
    """A series in Prometheus' text form."""
    if not labels:
        return name
    inner = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels.items())
    return f"{name}{{{inner}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")[:200]


def _cpu() -> Iterator[Reading]:
    times, count = psutil.cpu_times(), psutil.cpu_count() or 1
    for mode in _MODES:
        if (seconds := getattr(times, mode, None)) is not None:
            yield series("node_cpu_seconds_total", cpu="all", mode=mode), seconds / count


def _each_cpu() -> Iterator[Reading]:
    for number, times in enumerate(psutil.cpu_times(percpu=True)):
        for mode in _MODES:
            if (seconds := getattr(times, mode, None)) is not None:
                yield series("node_cpu_seconds_total", cpu=str(number), mode=mode), seconds


def _load() -> Iterator[Reading]:
    for minutes, load in zip(("1", "5", "15"), os.getloadavg(), strict=True):
        yield f"node_load{minutes}", load


def _memory() -> Iterator[Reading]:
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    yield "node_memory_MemTotal_bytes", memory.total
    yield "node_memory_MemAvailable_bytes", memory.available
    yield "node_memory_MemFree_bytes", memory.free
    for name in ("Buffers", "Cached"):
        if (value := getattr(memory, name.lower(), None)) is not None:
            yield f"node_memory_{name}_bytes", value
    yield "node_memory_SwapTotal_bytes", swap.total
    yield "node_memory_SwapFree_bytes", swap.free


def _disks() -> Iterator[Reading]:
    counted = psutil.disk_io_counters(perdisk=True) or {}
    whole = sorted(name for name in counted if _whole(name))
    for device in whole[:MAX_DEVICES]:
        counters = counted[device]
        yield series("node_disk_read_bytes_total", device=device), counters.read_bytes
        yield series("node_disk_written_bytes_total", device=device), counters.write_bytes
        yield series("node_disk_reads_completed_total", device=device), counters.read_count
        yield series("node_disk_writes_completed_total", device=device), counters.write_count
        if (busy := getattr(counters, "busy_time", None)) is not None:
            yield series("node_disk_io_time_seconds_total", device=device), busy / 1000


def _whole(device: str) -> bool:
    return Path("/sys/block", device).exists() and not device.startswith(("loop", "ram"))


def _filesystems() -> Iterator[Reading]:
    seen: set[str] = set()
    for part in psutil.disk_partitions(all=True):
        if (part.fstype in _PSEUDO and part.mountpoint != "/") or part.device in seen or len(seen) >= MAX_MOUNTS:
            continue
        stat = _statvfs(part.mountpoint, part.fstype)
        if stat is None or not stat.f_blocks:
            continue
        seen.add(part.device)
        labels = {"device": part.device, "fstype": part.fstype, "mountpoint": part.mountpoint}
        yield series("node_filesystem_size_bytes", **labels), stat.f_blocks * stat.f_frsize
        yield series("node_filesystem_avail_bytes", **labels), stat.f_bavail * stat.f_frsize
        yield series("node_filesystem_files", **labels), stat.f_files
        yield series("node_filesystem_files_free", **labels), stat.f_ffree


def _statvfs(mountpoint: str, kind: str) -> os.statvfs_result | None:
    """None for one that is not for us, or whose server is away: that one lets go of nobody who asks."""
    found: list[os.statvfs_result] = []

    def ask() -> None:
        with suppress(OSError):
            found.append(os.statvfs(mountpoint))

    if not kind.startswith(_REMOTE):
        ask()
    elif (before := _asked.get(mountpoint)) is None or not before.is_alive():
        asking = _asked[mountpoint] = threading.Thread(target=ask, name="statvfs", daemon=True)
        asking.start()
        asking.join(PATIENCE_S)
    return found[0] if found else None


def _network() -> Iterator[Reading]:
    counted = psutil.net_io_counters(pernic=True)
    for device in sorted(name for name in counted if name != "lo")[:MAX_DEVICES]:
        counters = counted[device]
        yield series("node_network_receive_bytes_total", device=device), counters.bytes_recv
        yield series("node_network_transmit_bytes_total", device=device), counters.bytes_sent
        yield series("node_network_receive_errs_total", device=device), counters.errin
        yield series("node_network_transmit_errs_total", device=device), counters.errout
        yield series("node_network_receive_drop_total", device=device), counters.dropin
        yield series("node_network_transmit_drop_total", device=device), counters.dropout


def _system() -> Iterator[Reading]:
    yield "node_boot_time_seconds", psutil.boot_time()
    yield "node_context_switches_total", psutil.cpu_stats().ctx_switches
    yield "node_processes_pids", len(psutil.pids())
    used, _, most = Path("/proc/sys/fs/file-nr").read_text().split()
    yield "node_filefd_allocated", float(used)
    yield "node_filefd_maximum", float(most)
