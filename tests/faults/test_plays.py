"""A job whose plays span nodes, while the server and node agents are killed: no task twice, the right end.

LLMAGENTOS_KILLS sets how many kills there are.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmagentos.api.jobs import InventorySource
from support.node import NodeProcess, ended, kill_all, submit
from support.server import ServerProcess

KILLS = int(os.environ.get("LLMAGENTOS_KILLS", "4"))
NODES = ["a", "b"]
INVENTORY = [InventorySource("hosts", "a\nb\n")]
PLAY = """\
- hosts: all
  gather_facts: false
  serial: 1
  tasks:
    - shell: "echo {{ inventory_hostname }} {{ item }} >> MARK; sleep 0.2"
      loop: [1, 2, 3]
    - shell: "echo {{ inventory_hostname }} elsewhere >> MARK; sleep 0.2"
      delegate_to: "{{ 'b' if inventory_hostname == 'a' else 'a' }}"
- hosts: all
  gather_facts: false
  tasks:
    - shell: "echo once >> MARK; sleep 0.2; echo token"
      register: token
      run_once: true
    - shell: "echo {{ inventory_hostname }} {{ token.stdout }} {{ hostvars['a'].token.rc }} >> MARK"
"""
LOST = """\
- hosts: all
  gather_facts: false
  tasks:
    - shell: "touch MARK-{{ inventory_hostname }}; sleep {{ 60 if inventory_hostname == 'b' else 0 }}"
    - shell: "echo {{ hostvars.a.inventory_hostname }} after >> MARK"
"""
WHOLE = [
    *("a 1", "a 2", "a 3", "a elsewhere", "b 1", "b 2", "b 3", "b elsewhere", "once"),
    *("a token 0", "b token 0"),
]


@pytest.fixture
def two(server: ServerProcess, tmp_path: Path) -> Iterator[list[NodeProcess]]:
    """Nodes `a` and `b`."""
    made = []
    for name in NODES:
        (tmp_path / name).mkdir()
        made.append(NodeProcess(tmp_path / name, server, name))

    async def join() -> None:
        await asyncio.gather(*(node.join() for node in made))

    asyncio.run(join())
    yield made
    for node in made:
        if node.process is not None and node.process.poll() is None:
            node.stop()
        for job in (node.state / "jobs").iterdir():
            kill_all(node.runners(job.name))


@pytest.mark.timeout(240)
def test_server_and_node_agents_are_killed(server: ServerProcess, two: list[NodeProcess], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    chance = random.Random(4)

    async def main() -> None:
        async with server.client() as client:
            number = await submit(client, {"site.yml": PLAY.replace("MARK", str(mark))}, inventory=INVENTORY)
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(0.1, 0.7))
            victim = chance.choice([server, *two])
            victim.kill()
            await asyncio.to_thread(victim.start)
        async with server.client() as client:
            job = await ended(client, number)
        assert job.summary.state == "succeeded", job.hosts
        assert {host.node: host.recap.ok for host in job.hosts if host.recap} == {"a": 4, "b": 3}
        lines = mark.read_text().splitlines()
        assert lines[:9] == WHOLE[:9], "one host after the other, then the second play"
        assert sorted(lines) == sorted(WHOLE), "each task once"

    asyncio.run(main())


def test_a_runner_is_killed_and_the_others_go_on(server: ServerProcess, two: list[NodeProcess], tmp_path: Path) -> None:
    """As with a host that ansible-playbook cannot reach any more."""
    mark = tmp_path / "mark"
    play = LOST.replace("MARK", str(mark))

    async def main() -> None:
        async with server.client() as client:
            number = await submit(client, {"site.yml": play}, inventory=INVENTORY)
            async with asyncio.timeout(60):
                while not Path(f"{mark}-b").exists():
                    await asyncio.sleep(0.02)
            kill_all(two[1].runners(number))
            job = await ended(client, number)
            assert {host.node: host.state for host in job.hosts} == {"a": "succeeded", "b": "interrupted"}
            assert mark.read_text() == "a after\n"

    asyncio.run(main())
