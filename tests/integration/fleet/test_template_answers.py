"""A survey's answers on a real node: texts and secrets, never templates."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from llmagentos.api import jobs, templates
from llmagentos.api.jobs import JobSpec, TaskResult
from llmagentos.api.templates import Launch, Parameter, TemplateSpec
from support.files import that_hold
from support.node import NodeProcess, bundle, ended
from support.server import ServerProcess

PLAYBOOK = """\
- hosts: all
  gather_facts: false
  tasks:
    - {name: shown, debug: {msg: "{{ greeting }} {{ own }} {{ many | join(',') }} {{ password | length }}"}}
    - {name: written, copy: {content: "{{ greeting }}", dest: "{{ path }}"}}
"""


async def launched(server: ServerProcess, path: str) -> tuple[str, list[str]]:
    content = bundle({"site.yml": PLAYBOOK})
    digest = hashlib.sha256(content).hexdigest()
    asked = [
        Parameter("greeting"),
        Parameter("password", "secret"),
        Parameter("own", default="{{ 6 * 7 }}"),
        Parameter("many", "multichoice", choices=["{{ 1 }}", "b"]),
    ]
    given = {"greeting": "{{ lookup('pipe', 'id') }}", "password": "{{ 'x' * 90 }}", "many": ["{{ 1 }}", "b"]}
    async with server.client() as admin:
        await jobs.upload_bundle(admin, digest, content)
        spec = JobSpec(digest, "site.yml", extra_vars={"path": path})
        await templates.apply(admin, "greet", TemplateSpec(spec, parameters=asked))
        job = await templates.launch(admin, "greet", Launch(given))
        done = await ended(admin, job.summary.id)
        records = await jobs.events(admin, job.summary.id)
    said = [r.event.result.get("msg") for r in records if isinstance(r.event, TaskResult) and r.event.task == "shown"]
    return done.summary.state, said


def test_answers_are_not_evaluated_but_the_makers_default_is(
    server: ServerProcess, node: NodeProcess, tmp_path: Path
) -> None:
    path = tmp_path / "made"
    state, said = asyncio.run(launched(server, str(path)))
    assert state == "succeeded", node.log()
    assert said == ["{{ lookup('pipe', 'id') }} 42 {{ 1 }},b 14"]
    assert path.read_text() == "{{ lookup('pipe', 'id') }}"
    assert that_hold("'x' * 90", server.state) == []
