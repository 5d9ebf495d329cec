"""What the runner is given, and how its end is told."""

from __future__ import annotations

from typing import Any

import pytest

from llmagentos.api.jobs import Inventory, InventoryGroup, NodeJob, Stats
from llmagentos.core.errors import InvalidInput
from llmagentos.fleet.node.jobdir import Exit, Stop
from llmagentos.fleet.node.spec import runner_spec
from llmagentos.fleet.node.work import ending


def job(**fields: Any) -> NodeJob:
    defaults: dict[str, Any] = {"job": 1, "fence": 7, "host": "web1", "bundle": "0" * 64, "playbook": "site.yml"}
    return NodeJob(**(defaults | {"inventory": Inventory()} | fields))


def spec(given: NodeJob) -> dict[str, Any]:
    return runner_spec(given, home="/home", variables={"llmagentos_node": "web1"})


def test_only_this_host_is_reached() -> None:
    inventory = Inventory(
        groups={
            "all": InventoryGroup(vars={"colour": "red"}),
            "web": InventoryGroup(hosts=["web1", "web2"], vars={"port": 80}),
            "site": InventoryGroup(children=["web"]),
        },
        hostvars={"web1": {"ansible_connection": "ssh", "a": 1}},
    )
    found = spec(job(inventory=inventory))["inventory"]["all"]
    assert found["hosts"]["web1"] == {"ansible_connection": "local", "a": 1}
    assert found["hosts"]["web2"] == {"ansible_connection": "llmagentos_elsewhere"}
    assert found["children"]["site"]["children"] == {"web": {}}
    assert found["children"]["web"]["vars"] == {"port": 80}
    assert found["vars"]["colour"] == "red"
    assert found["vars"]["llmagentos_node"] == "web1"


def test_localhost_is_this_node_where_a_play_says_so() -> None:
    assert spec(job())["limit"] == "web1"
    assert spec(job(local=True))["limit"] == "web1,localhost"


def test_what_is_literal_is_marked_for_ansible_core() -> None:
    given = {"a": "{{ x }}", "b": "{{ y }}", "n": 1, "l": ["{{ z }}", 2]}
    found = spec(job(extra_vars=given, literal=["a", "n", "l", "gone"]))["extra_vars"]
    assert found == {
        "a": {"__ansible_unsafe": "{{ x }}"},
        "b": "{{ y }}",
        "n": 1,
        "l": [{"__ansible_unsafe": "{{ z }}"}, 2],
    }


@pytest.mark.parametrize("path", ["../site.yml", "/etc/site.yml", "a/../../b.yml"])
def test_paths_stay_in_the_bundle(path: str) -> None:
    with pytest.raises(InvalidInput, match="leads out"):
        spec(job(playbook=path))
    with pytest.raises(InvalidInput, match="leads out"):
        spec(job(inventory=Inventory(directory=path)))


def test_ends() -> None:
    recap = {"web1": Stats(ok=2, unreachable=1), "localhost": Stats(ok=1)}
    assert ending(job(), Exit(0, recap), None).recap == Stats(ok=3, unreachable=1)
    assert ending(job(), Exit(0), None).status == "succeeded"
    assert ending(job(), Exit(2, recap), None).status == "failed"
    assert ending(job(), Exit(4, recap), None).status == "unreachable"
    assert ending(job(), Exit(4, {}, "not YAML"), None).status == "failed"
    assert ending(job(), Exit(99), Stop("cancelled", "cancelled while it ran")).status == "cancelled"
    interrupted = ending(job(), None, None)
    assert (interrupted.status, interrupted.fence) == ("interrupted", 7)
    assert "not run again" in (interrupted.message or "")
