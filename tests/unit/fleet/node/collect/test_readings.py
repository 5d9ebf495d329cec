"""What is measured when a part of the machine does not answer: all the rest."""

from __future__ import annotations

import os
import threading
from types import SimpleNamespace

import pytest

from llmagentos.fleet.node.collect import gpu, readings


class LostError(Exception):
    """As NVML's errors: of no class that Python has."""


class Library:
    """NVML with a driver that has lost one of two devices, or all of them."""

    NVMLError = LostError
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, *, gone: bool) -> None:
        self._gone = gone

    def nvmlDeviceGetCount(self) -> int:
        if self._gone:
            raise LostError
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 0:
            raise LostError
        return index

    def nvmlDeviceGetPowerUsage(self, device: int) -> int:
        return 250_000

    def __getattr__(self, name: str) -> object:
        def lost(*_: object) -> None:
            raise LostError

        return lost


def test_an_accelerator_that_is_lost_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_library", lambda: Library(gone=False))
    assert {name: value for name, value in readings.read().items() if "gpu" in name} == {
        'node_gpu_power_watts{gpu="1"}': 250.0
    }
    monkeypatch.setattr(gpu, "_library", lambda: Library(gone=True))
    found = readings.read()
    assert "node_load1" in found
    assert not any("gpu" in name for name in found)


def test_a_file_system_whose_server_is_away_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [SimpleNamespace(device="far:/", mountpoint="/far", fstype="nfs4")]
    parts.append(SimpleNamespace(device="/dev/here", mountpoint="/", fstype="ext4"))
    back, asked, real = threading.Event(), list[str](), os.statvfs

    def statvfs(path: str) -> os.statvfs_result:
        asked.append(path)
        if path == "/far":
            back.wait(60)
        return real("/")

    monkeypatch.setattr(readings.psutil, "disk_partitions", lambda all: parts)
    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr(readings, "PATIENCE_S", 0.05)

    def devices() -> set[str]:
        return {part.device for part in parts if any(f'"{part.device}"' in name for name in readings.read())}

    assert devices() == {"/dev/here"}
    assert devices() == {"/dev/here"}
    assert asked.count("/far") == 1, "one waits for it, not one more each time"
    monkeypatch.setattr(readings, "PATIENCE_S", 40.0)
    back.set()
    readings._asked["/far"].join(40)
    assert devices() == {"far:/", "/dev/here"}
