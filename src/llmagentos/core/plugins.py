"""Plugins: installed packages that add to the system through an entry point, named in the configuration.

A package declares `[project.entry-points."llmagentos.server"] name = "package:function"`. The function is
called while the server is wired, with the same arguments as our own wirings (`server/wiring/`): it may
add endpoints, background work and clean-up. Nothing is loaded that `plugins` does not name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from llmagentos.core.errors import ConfigError, nearest

GROUP = "llmagentos.server"


def load(names: Sequence[str]) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Name and function of each plugin, in the order of `names`.

    Raises `ConfigError` for one that is not installed or cannot be imported.
    """
    installed = {entry.name: entry for entry in entry_points(group=GROUP)}
    for name in names:
        if name not in installed:
            close = nearest(name, installed)
            raise ConfigError(
                f"plugins: no plugin {name!r} is installed; there are: {', '.join(sorted(installed)) or 'none'}",
                hint=f"did you mean {close!r}?" if close else "pip install the package that brings it",
            )
        yield name, _import(installed[name])


def _import(entry: EntryPoint) -> Callable[..., Any]:
    try:
        found = entry.load()
    except Exception as error:  # foreign code: whatever it raises, the operator has to know which plugin it was
        raise ConfigError(
            f"plugins: {entry.name!r} ({entry.value}) cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not callable(found):
        raise ConfigError(f"plugins: {entry.name!r} ({entry.value}) is not a function")
    wire: Callable[..., Any] = found
    return wire
