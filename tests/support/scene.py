"""A server with something of everything, put in through the API as modules and nodes do it."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from llmagentos.api import hosting, job_files, jobs, nodes, registry, runs, templates
from llmagentos.api.agents import AgentSpec, ToolUse
from llmagentos.api.client import ApiClient
from llmagentos.api.tokens import NewToken, TokenRequest
from llmagentos.cli.pack import pack
from support.node import join_request
from support.server import ServerProcess

HOSTILE = "<script>alert(1)</script>"

PLAYBOOK = """\
- name: Deploy the catalogue
  hosts: all
  tasks:
    - name: Write its configuration
      template: {src: a.j2, dest: /etc/catalogue.yaml}
    - name: Packages
      apt: {name: "{{ item }}"}
      loop: [curl, git]
"""

PRODUCTS = [
    {"id": "K-170", "name": "Kettle 1.7 l", "price": 39.9, "tags": ["kitchen", "steel"], "note": None},
    {"id": "K-050", "name": HOSTILE, "price": 19.0, "tags": [], "note": "travel " * 12},
]


@dataclass
class Scene:
    """What was put in."""

    answered: str = ""
    failed: str = ""
    waiting: str = ""
    job: int = 0
    nodes: list[str] = field(default_factory=list)


def furnish(server: ServerProcess) -> Scene:
    """Fill `server`. In a thread: whoever calls may have an event loop of its own."""
    scene = Scene()
    failure: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(_fill(server, scene))
        except BaseException as error:  # told to the caller
            failure.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(100)
    if failure:
        raise failure[0]
    return scene


async def _fill(server: ServerProcess, scene: Scene) -> None:
    async with server.client() as admin:
        await _services(server, admin)
        await _runs(server, admin, scene)
        await _jobs(server, admin, scene)


async def _token(admin: ApiClient, kind: str, name: str) -> str:
    return (await admin.post("/api/v1/tokens", TokenRequest(kind, name), NewToken)).token


async def _services(server: ServerProcess, admin: ApiClient) -> None:
    schema = {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "most": {"type": "integer", "default": 5},
            "sort": {"enum": ["price", "name"]},
        },
        "required": ["text"],
    }
    found = {"type": "array", "items": {"type": "object", "title": "Product"}}
    methods = [
        registry.MethodSpec("search", "Products whose name or text fits the words.", True, False, schema, found),
        registry.MethodSpec("watch", HOSTILE, False, True, {"type": "object", "properties": {}}, {}),
    ]
    services = [registry.ServiceSpec("catalogue", "The products of a small shop.", methods)]
    async with server.client(await _token(admin, "module", "shop")) as module:
        for port in (40101, 40102):
            request = registry.Registration("shop", "1.4.0", f"http://127.0.0.1:{port}", services)
            made = await registry.register(module, request)
        await registry.drain(module, made.instance, timeout=5)


async def _runs(server: ServerProcess, admin: ApiClient, scene: Scene) -> None:
    spec = AgentSpec(
        "helpdesk",
        instructions="You answer questions about products. Use only what the catalogue says.\nBe brief.",
        tools=[ToolUse("catalogue.search")],
        ground="catalogue.search",
    )
    async with server.client(await _token(admin, "module", "desk")) as module:
        ask = hosting.ClaimRequest("desk", [hosting.HostedAgent(spec, ["greet"])], "desk-1", 0.0)
        await hosting.claim(module, ask)  # makes the agent known
        scene.answered = await _run(admin, module, ask, f"Which kettle is the biggest? {HOSTILE}", _good())
        bad = [runs.Failed("the model 'default' is unreachable: connection refused", "engine_unreachable")]
        scene.failed = await _run(admin, module, ask, "What does it cost?", [_called(), *bad])
        scene.waiting = await _run(admin, module, ask, "Where is my parcel? " * 20, [_called()])


def _called() -> runs.Data:
    return runs.ModelCalled(runs.Purpose.ANSWER, "default")


def _good() -> list[runs.Data]:
    answer = f"The biggest is the Kettle 1.7 l (K-170) for 39.90.\n\n{HOSTILE}"
    return [
        runs.ToolCalled("c1", "catalogue.search", {"text": "biggest kettle"}),
        runs.ToolAnswered("c1", PRODUCTS, None, 0.0123),
        runs.ToolCalled("c2", "greet", {"name": HOSTILE}),
        runs.ToolAnswered("c2", None, "TypeError: greet() takes no arguments", 0.0004),
        _called(),
        runs.ModelReplied(runs.Purpose.ANSWER, answer, 412, 31, 0.25, 0.48, 2.9, cut=True),
        runs.Answered(answer, PRODUCTS),
    ]


async def _run(
    admin: ApiClient, module: ApiClient, ask: hosting.ClaimRequest, text: str, happened: list[runs.Data]
) -> str:
    started = await runs.start(admin, "helpdesk", text)
    claim = await hosting.claim(module, ask)
    assert claim is not None
    assert claim.run == started.id
    after = claim.events[-1].seq
    for data in happened:
        after = (await hosting.append(module, claim.run, hosting.Append(claim.fence, after, [data])))[-1].seq
        await asyncio.sleep(0.003)
    return claim.run


async def _jobs(server: ServerProcess, admin: ApiClient, scene: Scene) -> None:
    for name in ("web-1", "web-2"):
        async with server.client(await _token(admin, "join", name)) as joining:
            joined = await nodes.join(joining, join_request(name))
        scene.nodes.append(name)
        async with server.client(joined.token) as node:
            await _describe(node, name)
            if name == "web-1":
                scene.job = await _submit(server, admin)
                await _work(node, scene.job)


async def _describe(node: ApiClient, name: str) -> None:
    gib = 1024**3
    await nodes.put_facts(
        node,
        nodes.Facts(
            hostname=f"{name}.example",
            version="0.1.0",
            os="Debian GNU/Linux 12 (bookworm)",
            kernel="6.1.0-18-amd64",
            architecture="x86_64",
            cpus=2,
            memory_bytes=8 * gib,
            disk_bytes=80 * gib,
            python="3.11.2",
            ansible="2.19.3",
            addresses=["10.0.0.7", "fd00::7"],
            user="root",
        ),
    )
    units = [
        nodes.ModuleUnit("catalogue", "running", 4711, 0, time.time() - 4000),
        nodes.ModuleUnit("mailer", "failed", None, 7, None, HOSTILE),
    ]
    beat = nodes.Heartbeat([0.42, 0.31, 0.2], 5 * gib, 61 * gib, units, time.time() + 90)
    await nodes.beat(node, beat)


async def _submit(server: ServerProcess, admin: ApiClient) -> int:
    directory = server.directory / "playbook"
    directory.mkdir(exist_ok=True)
    (directory / "site.yml").write_text(PLAYBOOK)
    (directory / "a.j2").write_text("colour: blue\n")
    digest, content = pack(directory)
    await jobs.upload_bundle(admin, digest, content)
    spec = jobs.JobSpec(digest, "site.yml", check=True, diff=True)
    survey = [templates.Parameter("version", label="Version", regex=r"\d+\.\d+"), templates.Parameter("debug", "bool")]
    await templates.apply(admin, "deploy", templates.TemplateSpec(spec, "Deploys the catalogue", survey))
    job = await jobs.submit(admin, spec)
    return job.summary.id


async def _work(node: ApiClient, job: int) -> None:
    claimed = (await jobs.claim(node, wait=5)).job
    assert claimed is not None
    assert claimed.job == job
    await jobs.send_events(node, job, claimed.fence, _events())
    for name, content in (("hosts", "127.0.0.1 主机\n".encode()), (f'{HOSTILE} "é"', b"")):
        fetched = job_files.Fetched(f"got/web-1/{name}", f"/etc/{name}", hashlib.sha256(content).hexdigest(), 0)
        await job_files.send(node, job, claimed.fence, fetched, content)
    recap = jobs.Stats(ok=3, changed=1, failed=1, skipped=1)
    await jobs.finish(node, job, jobs.Finish(claimed.fence, "failed", 2, recap))


def _events() -> list[jobs.JobEvent]:
    now = time.time()

    def at(seq: int) -> dict[str, Any]:
        return {"seq": seq, "at": now + seq / 10}

    changed = jobs.Difference("port: 80\nname: a\n", f"port: 8080\nname: a\nnote: {HOSTILE}\n", "before", "after")
    refused = {"msg": "No package matching 'git' is available", "rc": 100, "stderr": "E: Unable to locate\nE: bye\n"}
    return [
        jobs.LogLine(**at(1), level="warning", text=f"provided hosts list is empty {HOSTILE}"),
        jobs.PlayStarted(**at(2), name="Deploy the catalogue"),
        jobs.TaskStarted(**at(3), name="Gathering Facts", action="setup"),
        jobs.TaskResult(**at(4), host="web-1", task="Gathering Facts", status="ok", duration_s=1.2),
        jobs.TaskStarted(**at(5), name="Write its configuration", action="template"),
        jobs.TaskResult(
            **at(6), host="web-1", task="Write its configuration", status="changed", diff=[changed], duration_s=0.31
        ),
        jobs.TaskStarted(**at(7), name="Only on Fedora", action="dnf"),
        jobs.TaskResult(
            **at(8), host="web-1", task="Only on Fedora", status="skipped", result={"skip_reason": "It is Debian"}
        ),
        jobs.TaskStarted(**at(9), name="Packages", action="apt"),
        jobs.TaskResult(**at(10), host="web-1", task="Packages", status="ok", item="curl", is_item=True),
        jobs.TaskResult(
            **at(11), host="web-1", task="Packages", status="failed", item={"name": "git"}, is_item=True, result=refused
        ),
        jobs.TaskResult(
            **at(12), host="web-1", task="Packages", status="failed", result={"msg": "One or more items failed"},
            duration_s=63.0,
        ),
        jobs.TaskStarted(**at(13), name="Restart it", handler=True),
        jobs.TaskResult(**at(14), host="web-1", task="Restart it", status="ok", result={"stdout": "a\n" * 90}),
        jobs.Recap(**at(15), hosts={"web-1": jobs.Stats(ok=3, changed=1, failed=1, skipped=1)}),
    ]  # fmt: skip
