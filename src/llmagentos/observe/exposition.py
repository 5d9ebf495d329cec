"""The last values of all nodes as Prometheus reads them (text format 0.0.4), one `instance` a node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmagentos.api.telemetry import Sample, header

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(samples: Mapping[str, Sample]) -> str:
    """All series of `samples` (by node), each with the label `instance` and the node's name in it."""
    by_name: dict[str, list[str]] = {}
    for node, sample in sorted(samples.items()):
        for series, value in sample.values.items():
            name, _, labels = series.partition("{")
            inner = labels.removesuffix("}").rstrip(",")
            text = f'{{instance="{node}"' + (f",{inner}}}" if inner else "}")
            by_name.setdefault(name, []).append(f"{name}{text} {value!r}\n")
    return "".join(_families(by_name))


def _families(by_name: Mapping[str, list[str]]) -> Iterator[str]:
    for name in sorted(by_name):
        yield header(name)
        yield from by_name[name]
