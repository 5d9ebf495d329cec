"""From a bundle and the nodes there are to the hosts of a job; and any bytes to one clear error."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmagentos.api.jobs import InventorySource, JobSpec
from llmagentos.core.errors import CallerError, InvalidInput
from llmagentos.fleet import filters
from llmagentos.fleet.playbooks import bundle
from llmagentos.fleet.playbooks.machines import Machines
from llmagentos.fleet.playbooks.plan import Plan, plan

NODES = ["web1", "web2", "db1"]


def packed(files: dict[str, bytes], *members: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for member in members:
            archive.addfile(member)
    return out.getvalue()


def planned(
    playbook: str, *, inventory: str | None = None, nodes: Sequence[str] = NODES, limit: str | None = None
) -> Plan:
    content = packed({"site.yml": playbook.encode()})
    sources = [InventorySource("hosts.ini", inventory)] if inventory is not None else []
    spec = JobSpec(hashlib.sha256(content).hexdigest(), "./site.yml", inventory=sources, limit=limit)
    return plan(spec, content, nodes)


def test_without_an_inventory_all_are_the_nodes():
    found = planned("- hosts: all\n")
    assert (found.hosts, found.local) == (NODES, False)
    assert planned("- hosts: web*\n- hosts: db1\n", limit="!web2").hosts == ["web1", "db1"]


def machines() -> Machines:
    groups = {"web1": ["os_debian", "label_env_prod"], "web2": ["os_debian"], "db1": ["os_alpine"]}

    def matching(expression: str) -> set[str]:
        chosen = filters.parse(expression)
        return {name for name, found in groups.items() if chosen({"group": frozenset(found), "name": name})}

    return Machines(groups, matching)


def test_nodes_are_in_the_groups_of_their_facts_and_labels():
    assert planned("- hosts: os_debian\n", nodes=machines()).hosts == ["web1", "web2"]
    assert planned("- hosts: os_*:!label_env_prod\n", nodes=machines()).hosts == ["web2", "db1"]
    assert planned("- hosts: all\n", nodes=machines(), limit="os_alpine").hosts == ["db1"]
    told = planned("- hosts: os_debian\n", nodes=machines()).inventory.groups
    assert told["os_debian"].hosts == ["web1", "web2"]
    assert "os_debian" not in planned("- hosts: all\n", nodes=machines()).inventory.groups, "nobody asks for them"


def test_a_limit_may_be_an_expression_over_facts():
    def limited(limit: str, inventory: str | None = None) -> list[str]:
        return planned("- hosts: all\n", nodes=machines(), limit=limit, inventory=inventory).hosts

    assert limited("filter:group=os_debian and name~*2") == ["web2"]
    assert limited("filter:group=os_debian", "db1\nweb1\n") == ["web1"]
    with pytest.raises(InvalidInput, match="no node matches the filter 'name=x'"):
        limited("filter:name=x")
    with pytest.raises(InvalidInput, match="column 1"):
        limited("filter:nam=x")


def test_only_hosts_that_a_play_means_have_to_be_nodes():
    text = "[web]\nweb1\n[old]\ngone\n"
    assert planned("- hosts: web\n", inventory=text).hosts == ["web1"]
    with pytest.raises(InvalidInput, match=r"^hosts\.ini:4: unknown host 'gone': no node has this name"):
        planned("- hosts: all\n", inventory=text)


def test_localhost_is_the_node_itself():
    found = planned("- hosts: localhost\n- hosts: web1\n")
    assert (found.hosts, found.local) == (["web1"], True)
    assert planned("- hosts: localhost\n", limit="web2").hosts == ["web2"]
    assert planned("- hosts: localhost\n", nodes=["only"]).hosts == ["only"]
    with pytest.raises(InvalidInput, match=r"site\.yml:1: hosts: localhost means the node itself, and there are 3"):
        planned("- hosts: localhost\n")


def test_what_only_the_node_can_know_goes_to_every_host():
    assert planned("- hosts: '{{ unknown }}'\n", limit="web*").hosts == ["web1", "web2"]


@pytest.mark.parametrize(
    ("playbook", "more", "message"),
    [
        ("- hosts: web9\n", {}, r"site\.yml:1: unknown host or group 'web9'"),
        ("- hosts: all\n", {"limit": "webb1"}, "--limit: unknown host or group 'webb1'"),
        ("- hosts: all\n", {"limit": "@retry"}, "--limit @retry"),
        ("- hosts: web1\n", {"limit": "db1"}, r"site\.yml:1: no host matches within --limit db1"),
        ("- hosts: all\n", {"nodes": []}, "there is no node"),
        ("- hosts: all\n", {"inventory": ""}, "no host in the inventory"),
        ("- hosts: '~x'\n", {}, r"site\.yml:1: the host pattern '~x' is a regular expression"),
    ],
)
def test_what_is_wrong_is_said(playbook, more, message):
    with pytest.raises(InvalidInput, match=message):
        planned(playbook, **more)


def test_a_playbook_that_is_not_there():
    content = packed({"site.yml": b"- hosts: all\n"})
    with pytest.raises(InvalidInput, match=r"no playbook 'sites\.yml'") as caught:
        plan(JobSpec("0" * 64, "sites.yml"), content, NODES)
    assert caught.value.hint == "did you mean 'site.yml'?"


def _link() -> tarfile.TarInfo:
    entry = tarfile.TarInfo("link")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return entry


@pytest.mark.parametrize(
    "content",
    [
        packed({"../x.yml": b""}),
        packed({"/x.yml": b""}),
        packed({}, _link()),
        gzip.compress(b"not a tar" * 1000),
        gzip.compress(bytes(1024))[:-10],
        b"",
    ],
    ids=["up", "root", "link", "no tar", "cut", "empty"],
)
def test_bundles_that_are_refused(content):
    with pytest.raises(bundle.BadBundle):
        bundle.read(content)


def test_a_bomb_is_stopped():
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=1) as file:
        head = tarfile.TarInfo("zeros")
        head.size = 2**40
        file.write(head.tobuf())
        file.write(bytes(1 << 20))
    with pytest.raises(bundle.BadBundle, match="over 512 MiB"):
        bundle.read(bomb.getvalue())


YAML_PIECES = st.sampled_from(
    [
        "- ",
        "hosts",
        ": ",
        "all",
        "\n",
        "  ",
        "tasks",
        "    - ",
        "shell",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "!x ",
        "|",
        "'",
        '"',
        "#",
        "block",
        "roles",
        "import_playbook",
        "site.yml",
        "import_tasks",
        "\t",
        "? ",
        "<<",
        "{{ x }}",
        "name",
        "é",
        "\x85",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(YAML_PIECES, max_size=40).map("".join))
@example("- hosts: all\n  tasks:\n    - shell: x\n")
def test_any_text_is_a_plan_or_one_clear_error(text):
    try:
        found = planned(text)
    except CallerError as error:
        assert error.message and "\n" not in error.message.split(": ")[0]
    else:
        assert set(found.hosts) <= set(NODES)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["site.yml", "h.ini", "h.yml"]))
def test_any_bytes_are_a_plan_or_one_clear_error(content, place):
    files = {"site.yml": content if place == "site.yml" else b"- hosts: all\n"}
    sources = [] if place == "site.yml" else [InventorySource(place, content.decode("latin-1"))]
    with pytest.raises(CallerError) as caught:
        plan(JobSpec("0" * 64, "site.yml", inventory=sources), packed(files), NODES)
        raise InvalidInput("it was a plan")
    assert caught.value.message


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_as_a_bundle(content):
    for given_bytes in (content, gzip.compress(content)):
        try:
            bundle.read(given_bytes)
        except bundle.BadBundle as error:
            assert error.message


def test_what_a_play_asks_for_has_to_be_answered() -> None:
    asks = "- hosts: web1\n  vars_prompt:\n    - {name: who}\n    - {name: env, default: prod}\n"
    with pytest.raises(InvalidInput, match="vars_prompt asks for 'who', which has no default") as caught:
        planned(asks)
    assert caught.value.hint == "-e who=VALUE"
    assert planned(asks.replace("{name: who}", "{name: who, default: ''}")).hosts == ["web1"]
