"""What a job's hosts are: the inventories that were given, merged, or else all nodes."""

from __future__ import annotations

from collections.abc import Sequence

from llmagentos.api.jobs import InventorySource
from llmagentos.fleet.playbooks.document import InventoryError, PlaybookError
from llmagentos.fleet.playbooks.inventory import Builder
from llmagentos.fleet.playbooks.inventory_ini import read_ini
from llmagentos.fleet.playbooks.inventory_yaml import read_yaml
from llmagentos.fleet.playbooks.machines import groups_of


def of_nodes(nodes: Sequence[str], *, grouped: bool = True) -> Builder:
    """The inventory without `-i`: every node, unless not `grouped` in the groups that its facts and labels make."""
    builder = Builder()
    for name, groups in groups_of(nodes).items():
        builder.host(name, "all", {}, "nodes", 1)
        for group in groups if grouped else ():
            builder.host(name, builder.group(group, "nodes", 1), {}, "nodes", 1)
    return builder


def read(sources: Sequence[InventorySource]) -> Builder:
    """All sources in one. Raises `InventoryError` with file:line."""
    builder = Builder()
    for source in sources:
        try:
            if source.name.lower().endswith((".yml", ".yaml", ".json")):
                read_yaml(source, builder)
            else:
                read_ini(source, builder)
        except InventoryError:
            raise
        except PlaybookError as error:  # from what playbooks and inventories share
            raise InventoryError(error.message, hint=error.hint, **error.details) from None
    return builder
