"""nginx and MariaDB by templates: validated before they count, and drift is shown as a diff."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import urllib.request

import pytest

from llmagentos.api import jobs
from support.server import free_port

pytestmark = pytest.mark.anyio

PROGRAMS = ("nginx", "mariadbd", "mariadb", "mariadb-install-db")


async def test_validated_and_drift_is_shown(nodeless, start_nodes, example, root):
    if missing := [name for name in PROGRAMS if shutil.which(name, path="/usr/sbin:/usr/bin") is None]:
        pytest.skip(f"{', '.join(missing)} not installed here and could not be: scripts/test-tools.sh says why")
    await start_nodes("web1")
    example("configuration")
    port = free_port()
    settings = json.dumps({"root": str(root), "nginx_port": port, "mariadb_port": free_port()})
    nginx, mariadb = root / "nginx" / "nginx.conf", root / "mariadb" / "mariadb.cnf"

    async def llmctl(*arguments):
        return await asyncio.to_thread(nodeless.llmctl, *arguments)

    async def run(**variables):
        return await llmctl("run", "configuration/site.yml", "-e", settings, "-e", json.dumps(variables))

    done = await run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert await asyncio.to_thread(title, port) == "Lantern &amp; Loom"
    assert await asyncio.to_thread(connections, root) == "40"
    good = nginx.read_text(), mariadb.read_text()

    for bad, said in (
        ({"nginx_worker_connections": "many"}, "invalid number"),
        ({"mariadb_settings": {"max_conections": 50}}, "unknown variable"),
    ):
        done = await run(**bad)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "failed to validate" in done.stdout
        assert said in done.stdout
        assert (nginx.read_text(), mariadb.read_text()) == good
    assert await asyncio.to_thread(title, port) == "Lantern &amp; Loom"

    nginx.write_text(good[0].replace("worker_connections 512", "worker_connections 9"))
    add = ["schedules", "add", "drift", "configuration/site.yml", "--check", "--diff", "-e", settings]
    done = await llmctl(*add, "--cron", "* * * * * *")
    assert done.returncode == 0, done.stderr
    number = await fired(nodeless)
    await llmctl("schedules", "delete", "drift")
    shown = (await llmctl("job", "logs", str(number), "-f")).stdout
    assert "-    worker_connections 9;\n+    worker_connections 512;\n" in shown
    assert "changed=1 " in shown
    assert "Configuration of nginx" in (await llmctl("job", "show", str(number))).stdout
    assert "worker_connections 9;" in nginx.read_text(), "a check changes nothing"

    done = await run(mariadb_settings={"max_connections": 41})
    assert done.returncode == 0, done.stdout + done.stderr
    assert nginx.read_text() == good[0]
    async with asyncio.timeout(60):  # MariaDB restarts
        while await asyncio.to_thread(connections, root) != "41":
            await asyncio.sleep(0.1)


def title(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as found:
        return found.read().decode().partition("<title>")[2].partition("</title>")[0]


def connections(root):
    """MariaDB's `max_connections`; nothing when it does not answer."""
    argv = ["mariadb", "--no-defaults", f"--socket={root}/mariadb/mariadb.sock", "-BNe", "SELECT @@max_connections"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout.strip()


async def fired(server):
    """The first job that the schedule made."""
    async with server.client() as client, asyncio.timeout(60):
        while not (made := [job for job in await jobs.listing(client, limit=100) if job.origin]):
            await asyncio.sleep(0.1)
        return made[-1].id
