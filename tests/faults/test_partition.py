"""Nodes on hosts of their own, over TLS with certificates on both sides, whose links are cut in the middle."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmagentos.api import jobs, nodes
from llmagentos.api.client import ApiClient
from llmagentos.api.jobs import Job, TaskResult
from llmagentos.core.discovery import Credentials
from llmagentos.core.errors import Unauthenticated
from llmagentos.fleet.node import keys
from llmagentos.fleet.node.jobdir import JobDirectory
from llmagentos.fleet.node.session import Session
from llmagentos.fleet.node.state import NodeDirectory
from support.certificates import Authority
from support.network import Host, Network, NotPermitted
from support.node import NodeProcess, ended, submit
from support.server import ServerProcess, eventually

NAMES = ("web1", "web2")
TASKS = ["Before", "Long", "After"]
WHOLE = "before\nbegun\ndone\nafter\n"
AWAY_S = 3
"""After so long a node that is silent is away here."""
LOST_ANSWERS = int(os.environ.get("LLMAGENTOS_CUTS", "3"))
CUT_S = float(os.environ.get("LLMAGENTOS_CUT_S", "0"))
"""How long the link stays cut beyond what the test needs: after 30 s the leases of jobs end as well."""


def play(marks: Path, *, told: bool = False) -> str:
    """Three tasks, each of which notes what it does; the one in the middle goes on when it is `told` to."""
    mark = f"{marks}/{{{{ inventory_hostname }}}}"
    wait = f"until [ -e {marks}/go ]; do sleep 0.05; done; " if told else ""
    return (
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        f"    - {{name: Before, shell: 'echo before >> {mark}'}}\n"
        f"    - {{name: Long, shell: 'echo begun >> {mark}; {wait}echo done >> {mark}'}}\n"
        f"    - {{name: After, shell: 'echo after >> {mark}'}}\n"
    )


def go_on(marks: Path) -> None:
    """Tell the tasks in the middle."""
    (marks / "go").touch()


class Place:
    """A server, and two nodes on hosts of their own."""

    def __init__(self, network: Network, directory: Path) -> None:
        ca = Authority(directory)
        cert, key = ca.server(network.address)
        config = f"server: {{tls: {{cert: {cert}, key: {key}}}, node_away_s: {AWAY_S}}}\n"
        self.server = ServerProcess(directory, config, host=network.address, ca=ca.path)
        self.hosts: dict[str, Host] = {}
        self.nodes: dict[str, NodeProcess] = {}
        for name in NAMES:
            self.hosts[name] = network.host(name)
            (directory / name).mkdir()
            self.nodes[name] = NodeProcess(directory / name, self.server, name, inside=self.hosts[name].inside)

    def stop(self) -> None:
        for node in self.nodes.values():
            if node.process is not None and node.process.poll() is None:
                node.kill()
        if self.server.process is not None:
            self.server.kill()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    try:
        network = Network().__enter__()
    except NotPermitted as why:
        pytest.skip(str(why))
    made = None
    try:
        made = Place(network, tmp_path_factory.mktemp("place"))
        made.server.start()
        for node in made.nodes.values():
            asyncio.run(node.join())
        yield made
    finally:
        if made is not None:
            made.stop()
        network.__exit__()


async def in_state(client: ApiClient, name: str, state: str) -> None:
    deadline = time.monotonic() + 60
    while (found := (await nodes.show(client, name)).summary.state) != state:
        assert time.monotonic() < deadline, f"{name} is {found}"
        await asyncio.sleep(0.05)


async def all_right(client: ApiClient, job: Job, marks: Path) -> None:
    """Every task ran once on every node of the job, which knows all about it."""
    assert (job.summary.state, job.summary.exit_code) == ("succeeded", 0), job.hosts
    records = await jobs.events(client, job.summary.id)
    for host in job.hosts:
        assert (marks / host.node).read_text() == WHOLE
        events = [record.event for record in records if record.node == host.node]
        mine = [event for event in events if event.seq]
        assert [event.seq for event in mine] == list(range(1, len(mine) + 1)), "each event once, in order"
        assert [event.task for event in mine if isinstance(event, TaskResult)] == TASKS


def begun(marks: Path, name: str) -> bool:
    mark = marks / name
    return mark.exists() and "begun" in mark.read_text()


async def under_way(client: ApiClient, marks: Path) -> int:
    """A job whose long task runs on both nodes, until it is told to go on."""
    number = await submit(client, {"site.yml": play(marks, told=True)})
    await eventually(lambda: all(begun(marks, name) for name in NAMES))
    return number


@pytest.mark.timeout(240 + CUT_S)
@pytest.mark.parametrize("ends", ["while it is cut off", "afterwards"])
def test_a_node_is_cut_off_in_the_middle_and_comes_back(place: Place, tmp_path: Path, ends: str) -> None:
    async def main() -> None:
        host, node = place.hosts["web1"], place.nodes["web1"]
        async with place.server.client() as client:
            number = await under_way(client, tmp_path)
            host.cut()
            try:
                if ends == "while it is cut off":
                    go_on(tmp_path)
                    await eventually((node.state / "jobs" / str(number) / "exit.json").exists)
                    assert (tmp_path / "web1").read_text() == WHOLE, "the playbook went on without the server"
                await in_state(client, "web1", "away")
                await in_state(client, "web2", "ready")
                states = {found.node: found.state for found in (await jobs.show(client, number)).hosts}
                assert states["web1"] == "running", "nobody knows better yet"
                await asyncio.sleep(CUT_S)
            finally:
                host.heal()
            go_on(tmp_path)
            await all_right(client, await ended(client, number, within=90 + CUT_S), tmp_path)
            await in_state(client, "web1", "ready")

    asyncio.run(main())


@pytest.mark.parametrize("ends", ["while it is cut off", "afterwards"])
def test_the_node_agent_is_killed_while_it_is_cut_off(place: Place, tmp_path: Path, ends: str) -> None:
    async def main() -> None:
        host, node = place.hosts["web1"], place.nodes["web1"]
        async with place.server.client() as client:
            number = await under_way(client, tmp_path)
            host.cut()
            try:
                node.kill()
                if ends == "while it is cut off":
                    go_on(tmp_path)
                    await eventually((node.state / "jobs" / str(number) / "exit.json").exists)
            finally:
                host.heal()
            before = node.log().count("job claimed")
            node.start()
            await eventually(lambda: node.log().count("job claimed") > before)
            if ends == "afterwards":
                assert JobDirectory(node.state / "jobs" / str(number)).locked(), "the playbook runs on"
            go_on(tmp_path)
            await all_right(client, await ended(client, number), tmp_path)

    asyncio.run(main())


def test_the_answer_to_a_claim_is_lost(place: Place, tmp_path: Path) -> None:
    """The server gave the job away, and the node never heard of it; then it is killed, or asks again by itself."""

    async def main() -> None:
        host, node = place.hosts["web1"], place.nodes["web1"]
        async with place.server.client() as client:
            for killed in (False, True):
                marks = tmp_path / str(killed)
                marks.mkdir()
                await waiting(node)
                host.deafen()
                try:
                    number = await submit(client, {"site.yml": play(marks)}, limit="web1")
                    await claimed(client, number)
                    await asyncio.sleep(0.3)  # what was sent would have come by now
                    assert not (marks / "web1").exists(), "the node has not heard of it"
                    if killed:
                        node.kill()
                        node.start()
                finally:
                    host.heal()
                await all_right(client, await ended(client, number), marks)

    asyncio.run(main())


@pytest.mark.timeout(240 + 20 * LOST_ANSWERS)
def test_the_link_is_cut_at_random_moments_around_a_claim(place: Place, tmp_path: Path) -> None:
    chance = random.Random()  # moments, not secrets

    async def main() -> None:
        host, node = place.hosts["web1"], place.nodes["web1"]
        async with place.server.client() as client:
            for turn in range(LOST_ANSWERS):
                marks = tmp_path / str(turn)
                marks.mkdir()
                await waiting(node)
                number = await submit(client, {"site.yml": play(marks)}, limit="web1")
                await asyncio.sleep(chance.uniform(0, 0.25))
                host.cut()
                await asyncio.sleep(chance.uniform(0, 0.5))
                host.heal()
                await all_right(client, await ended(client, number), marks)

    asyncio.run(main())


def test_a_nodes_token_is_worth_nothing_without_its_certificate(place: Place) -> None:
    """All tests above ran over TLS with certificates on both sides; this shows that the node's one is needed."""

    async def main() -> None:
        node = place.nodes["web1"]
        node.stop()
        directory = NodeDirectory(node.state)
        identity = directory.read_identity()
        assert identity is not None
        async with (
            place.server.client() as admin,
            Session(directory, identity, identity.server, place.server.ca) as own,
        ):
            await nodes.beat(own, nodes.Heartbeat())
            shown = await nodes.show(admin, "web1")
            assert shown.certificate is not None
            assert shown.certificate.serial == keys.Credential(directory.credential).serial
            stolen = own._authorization["Authorization"].partition(" ")[2]
            for credential in (None, NodeDirectory(place.nodes["web2"].state).credential):
                tls = Credentials(identity.server, "", place.server.ca).tls()
                assert tls is not None
                if credential is not None:
                    tls.load_cert_chain(credential)
                async with ApiClient(identity.server, stolen, tls=tls) as thief:
                    with pytest.raises(Unauthenticated, match="TLS client certificate"):
                        await nodes.beat(thief, nodes.Heartbeat())
        node.start()

    asyncio.run(main())


async def waiting(node: NodeProcess) -> None:
    """Until nothing is left to do for the node agent but to wait for a job, which it has asked for."""

    def idle() -> bool:
        return all((job / "reported").exists() for job in (node.state / "jobs").iterdir())

    await eventually(idle)
    await asyncio.sleep(0.2)  # the next claim is on its way


async def claimed(client: ApiClient, number: int) -> None:
    deadline = time.monotonic() + 60
    while (await jobs.show(client, number)).hosts[0].state != "running":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
