"""NVIDIA's accelerators, through NVML where its library and a driver are there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

MAX_GPUS = 64
_MILLIWATTS = 1000.0


def read() -> Iterator[tuple[str, float]]:
    """Utilisation (0 to 1), memory in bytes, temperature, and power of each accelerator."""
    nvml = _library()
    if nvml is None:
        return
    for index in range(_count(nvml)):
        try:
            device = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError:  # it fell off its bus, or is being reset
            continue
        labels = f'{{gpu="{index}"}}'
        for name, value in _readings(nvml, device):
            yield f"node_gpu_{name}{labels}", value


def _count(nvml: Any) -> int:
    try:
        return min(int(nvml.nvmlDeviceGetCount()), MAX_GPUS)
    except nvml.NVMLError:  # the driver went away
        return 0


def _readings(nvml: Any, device: Any) -> Iterator[tuple[str, float]]:
    """What this device tells: not every one has every sensor."""
    sources = (
        lambda: [("utilization_ratio", nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100)],
        lambda: _memory(nvml.nvmlDeviceGetMemoryInfo(device)),
        lambda: [("temperature_celsius", nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU))],
        lambda: [("power_watts", nvml.nvmlDeviceGetPowerUsage(device) / _MILLIWATTS)],
    )
    for source in sources:
        try:
            yield from source()
        except nvml.NVMLError:
            continue


def _memory(info: Any) -> list[tuple[str, float]]:
    return [("memory_total_bytes", info.total), ("memory_used_bytes", info.used)]


@cache
def _library() -> Any | None:
    """NVML, begun once; None where there is none."""
    try:
        import pynvml  # its import alone needs no driver
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
