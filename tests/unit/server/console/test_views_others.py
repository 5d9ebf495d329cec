"""Tiles say what is wrong first; services say how they are called; facts that are not known are left out."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from llmagentos.api.agents import AgentInfo, AgentSpec, ToolUse
from llmagentos.api.approvals import Approval
from llmagentos.api.jobs import JobSummary
from llmagentos.api.llm import ModelInfo, ReplicaInfo
from llmagentos.api.nodes import Facts, Heartbeat, ModuleUnit, Node, NodeSummary
from llmagentos.api.registry import Instance, MethodSpec, ServiceSpec
from llmagentos.core.i18n import translate
from llmagentos.server.console.views import agents, models, nodes, overview, services
from llmagentos.server.console.words import Translate


def model(state: Any) -> ModelInfo:
    return ModelInfo("m", "openai", "chat", state, [], 1, 0, 0, 10)


def job(state: Any) -> JobSummary:
    return JobSummary(1, "site.yml", state, 1.0, "admin:li", ["a"])


def node(state: Any) -> NodeSummary:
    return NodeSummary("a", state, 1.0, 2.0, "", 0, 0, [], 0, [], "0.1")


def agent(*, host: str = "server", online: bool = True) -> AgentInfo:
    spec = AgentSpec("support", ground="c.find", tools=[ToolUse("c.find"), ToolUse("c.get")])
    return AgentInfo("support", 3, host, online, 1.0, "admin:li", spec, ["greet"])


def instance(number: int, *specs: ServiceSpec, state: Any = "up") -> Instance:
    return Instance(f"i{number}", "shop", "1", "http://h:1", list(specs), [], state, float(number))


def told(tile: overview.Tile) -> tuple[str, str, str]:
    return tile.value, tile.look, tile.note


def test_tiles_say_what_is_wrong_first(t: Translate) -> None:
    ready, loading, gone = model("ready"), model("loading"), model("unreachable")
    assert told(overview.models([ready, ready], t)) == ("2 ready", "ok", "m, m")
    assert told(overview.models([ready, loading], t))[:2] == ("1 loading", "busy")
    assert told(overview.models([ready, loading, gone], t))[:2] == ("1 unreachable", "bad")
    assert told(overview.nodes([node("ready"), node("away")], t)) == ("1 away", "bad", "a")
    assert told(overview.jobs([job("succeeded"), job("running")], t))[:2] == ("1 running", "busy")
    assert told(overview.jobs([job("failed"), job("succeeded")], t))[:2] == ("Last one failed", "bad")
    assert told(overview.jobs([job("cancelled")], t))[:2] == ("None running", "")
    assert told(overview.runs({"failed": 2, "succeeded": 1, "queued": 3}, t)) == (
        "None running", "", "waiting: 3 · succeeded: 1 · failed: 2",
    )  # fmt: skip
    assert told(overview.agents([agent(host="module:desk", online=False)], t)) == ("1", "warn", "not running: support")


def test_a_tile_says_what_waits_for_a_person(t: Translate) -> None:
    asked = [Approval(f"r.{i}", "r", "support", str(i), f"pay{i}", {}, "", "admin:li", 1.0, 2.0) for i in range(4)]
    assert told(overview.approvals(asked[:1], t)) == ("1 waiting", "warn", "pay0")
    assert told(overview.approvals(asked, t)) == ("4 waiting", "warn", "pay0, pay1, pay2 …")
    assert overview.approvals(asked, t).href == "/approvals"


def test_tiles_of_an_empty_system(t: Translate) -> None:
    tiles = [overview.runs({}, t), overview.agents([], t), overview.services([], t)]
    tiles += [overview.models([], t), overview.jobs([], t), overview.nodes([], t)]
    tiles.append(overview.approvals([], t))
    assert [(tile.look, tile.note) for tile in tiles] == [("", "")] * 7


def test_an_agent_says_who_hosts_it(t: Translate) -> None:
    assert agents.host(agent(), t) == "this server"
    assert agents.host(agent(host="module:desk", online=False), t) == "desk (not running)"
    assert agents.rows([agent()], t)[0]["tools"] == ["c.find", "c.get", "greet"]


def test_services_by_name_with_the_instances_that_take_calls_first(t: Translate) -> None:
    find, other = ServiceSpec("find"), ServiceSpec("alpha")
    shown = services.listing([instance(1, find), instance(2, find, other, state="draining"), instance(3)], t)
    assert [(one["name"], [i["id"] for i in one["instances"]]) for one in shown] == [
        ("alpha", ["i2"]),
        ("find", ["i1", "i2"]),
        ("shop", ["i3"]),
    ]


def test_a_method_in_a_line() -> None:
    parameters = {
        "properties": {
            "item": {"$ref": "#/$defs/Product"},
            "some": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
            "how": {"enum": ["a", "b"], "default": "a"},
            "any": {},
            "big": {"type": "string", "default": "x" * 100},
        },
        "required": ["item"],
    }
    method = MethodSpec("put", parameters=parameters, returns={"type": ["integer", "null"]})
    assert services.signature(method) == (
        'put(item: Product, some: array of string | null, how: "a" | "b" = "a", any: any, big: string = …)'
        " -> integer | null"
    )
    nested: dict[str, Any] = {"type": "string"}
    for _ in range(50):
        nested = {"type": "array", "items": nested}
    assert services.signature(MethodSpec("f", returns=nested)).endswith("array of any")


def test_facts_that_are_not_known_are_left_out(t: Translate) -> None:
    summary = msgspec.structs.replace(node("ready"), modules=[ModuleUnit("web", "running"), ModuleUnit("x", "failed")])
    shown = nodes.page(Node(summary, Facts("a", "0.1"), Heartbeat(), []), t)
    assert shown["facts"] == [("Node agent", "0.1")]
    assert [unit["state"] for unit in shown["modules"]] == ["up", "failed"]
    late = nodes.page(Node(summary, Facts("b", "0.1", memory_bytes=2**30), Heartbeat([0.5]), [], -30.0), t)
    assert late["facts"] == [
        ("Load", "0.50"),
        ("Memory free", "1.0 GiB"),
        ("Host name", "b"),
        ("Node agent", "0.1"),
        ("Clock", "30.0s behind the server"),
    ]


def test_models_in_both_languages(t: Translate) -> None:
    one = ReplicaInfo("http://g:8000/v1", "ready", 1, None, "vllm", "0.11", 5, 7, 0.625, 42.0, 0.25, None, 2**30)
    info = ModelInfo("m", "openai", "chat", "ready", [], 16, 3, 0, 256, None, 12.5, 2**28, replicas=[one])
    (row,) = models.rows([info], t)
    assert (row["memory"], row["tokens_per_s"], row["replicas"][0]["server"]) == (2**28, "12.5", "vllm 0.11")
    said = row["replicas"][0]["said"]
    assert said[:4] == ["calls of everybody: 5", "waiting there: 7", "cache in use: 62%", "tokens/s: 42.0"]
    (row,) = models.rows([info], partial(translate, "zh-CN"))
    assert row["replicas"][0]["said"][2] == "缓存占用: 62%"
    away = models.rows([ModelInfo("m", "openai", "chat", "unloaded", [], 1, 0, 0, 1, keep_alive="5m")], t)
    assert (away[0]["replicas"], away[0]["keep_alive"]) == ([], "5m")
