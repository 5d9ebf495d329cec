"""Inventories: both formats, their faults, and Ansible's own reading of the same text."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llmagentos.api.jobs import InventorySource
from llmagentos.fleet.playbooks.document import InventoryError
from llmagentos.fleet.playbooks.inventory import Builder, expand
from llmagentos.fleet.playbooks.patterns import Selector
from llmagentos.fleet.playbooks.sources import of_nodes, read

INI = """\
# comment
lonely.example ansible_port=2222 note="two words" # end
[web]
web[01:03].example color=red count=3 on=True "tags=['a', 'b']"
[db]
db-[a:c]
db-a primary=yes
[prod:children]
web
db
[prod:vars]
region = eu west
limit=10
ratio=1.5
[all:vars]
everywhere=1
; another comment
"""
YAML = """\
all:
  vars: {everywhere: 1}
  hosts:
    lonely.example: {ansible_port: 2222}
  children:
    prod:
      vars: {region: eu west}
      children:
        web:
          hosts:
            web[01:03].example: {color: red}
        db:
          hosts: {db-a: {primary: true}, db-b: , db-c: }
"""
PATTERNS = ["all", "web", "prod:!web", "web[0]", "web[1:2]", "*.example", "prod:&web", "web[-1]", "db-a,lonely.example"]


def one(text: str, name: str = "hosts.ini") -> Builder:
    return read([InventorySource(name, text)])


def test_both_formats_say_the_same():
    ini, yaml = one(INI), one(YAML, "hosts.yml")
    for built in (ini, yaml):
        groups = {name: sorted(hosts) for name, hosts in built.groups().items()}
        web, db = [f"web0{n}.example" for n in (1, 2, 3)], ["db-a", "db-b", "db-c"]
        assert groups == {
            "all": sorted([*web, *db, "lonely.example"]),
            "ungrouped": ["lonely.example"],
            "web": web,
            "db": db,
            "prod": sorted([*web, *db]),
        }
        assert built.variables["prod"]["region"] == "eu west"
        assert built.variables["all"] == {"everywhere": 1}
        assert built.hosts["lonely.example"]["ansible_port"] == 2222
    assert ini.hosts["web02.example"] == {"color": "red", "count": 3, "on": True, "tags": ["a", "b"]}
    assert ini.hosts["lonely.example"]["note"] == "two words"
    assert ini.variables["prod"] == {"region": "eu west", "limit": 10, "ratio": 1.5}
    assert ini.places["db-b"] == "hosts.ini:6"


def test_sources_add_up():
    built = read(
        [InventorySource("a.ini", "[web]\nx a=1\n"), InventorySource("b.yml", "web: {hosts: {x: {b: 2}, y: }}")]
    )
    assert built.groups()["web"] == ["x", "y"]
    assert built.hosts["x"] == {"a": 1, "b": 2}


def test_what_nodes_get_is_complete():
    wire = one(INI).wire("inventory")
    assert wire.directory == "inventory"
    assert wire.groups["prod"].children == ["web", "db"]
    assert wire.groups["all"].hosts[0] == "lonely.example"
    assert wire.hostvars["db-a"] == {"primary": "yes"}
    assert of_nodes(["n1", "n2"]).wire(None).groups["all"].hosts == ["n1", "n2"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("h.ini", "[web\n", "h.ini:1: '[web': a range needs its closing bracket"),
        ("h.ini", "[we b]\n", "h.ini:1: '[we b]' is no section"),
        ("h.ini", "[web:chidren]\n", "h.ini:1: a section cannot be of kind 'chidren'"),
        ("h.ini", "[a:children]\nb\n", "h.ini:2: the group 'b' is not defined"),
        ("h.ini", "[a:vars]\nx=1\n", "h.ini:1: the group 'a' is not defined"),
        ("h.ini", "[a]\nx\n[a:vars]\nnothing\n", "h.ini:4: expected key=value, not 'nothing'"),
        ("h.ini", "x y\n", "h.ini:1: expected key=value after the host, not 'y'"),
        ("h.ini", "x a='b\n", 'h.ini:1: "x a=\'b": no closing quotation'),
        ("h.ini", "x[1:\n", "h.ini:1: 'x[1:': a range needs its closing bracket"),
        ("h.ini", "x[3:1]\n", "h.ini:1: [3:1] is no range"),
        ("h.ini", "x[1:99999999]\n", "h.ini:1: [1:99999999] stands for more than 10000 hosts"),
        ("h.ini", "x[1:100][1:101]\n", "stands for more than 10000 hosts"),
        ("h.ini", "[a:children]\nb\n[b:children]\na\n", "h.ini:4: the group 'a' would hold itself"),
        ("h.yml", "- web\n", "h.yml:1: expected groups, found a list"),
        ("h.yml", "web: x\n", "h.yml:1: expected hosts, children or vars in the group 'web', found 'x'"),
        ("h.yml", "web:\n  host: {}\n", "h.yml:2: the group 'web' cannot hold 'host'"),
        ("h.yml", "web:\n  hosts: [a]\n", "h.yml:2: 'hosts' has to be a mapping, found a list"),
        ("h.yml", "web:\n  hosts:\n    a: 1\n", "h.yml:3: a host's variables have to be a mapping, found '1'"),
        (
            "h.yml",
            "web:\n  vars:\n    a: !vault x\n",
            "h.yml:3: an encrypted value in an inventory cannot be read here",
        ),
        ("h.yml", "web:\n  vars:\n    a: !!python/name:os.system\n", "h.yml:3: "),
        ("h.yml", "web: [\n", "h.yml:2: not YAML"),
        ("h.yml", "a: {children: {b: {children: {a: }}}}\n", "the group 'b' would hold itself"),
    ],
)
def test_faults_say_where_and_what(name, text, message):
    with pytest.raises(InventoryError) as caught:
        one(text, name)
    assert message in caught.value.message


def test_a_line_cannot_stand_for_gigabytes():
    with pytest.raises(InventoryError, match="the hosts' variables take more than"):
        one(f"web[1:9999] a={'x' * 1000}\n")
    many = ",".join(["*a"] * 1000)
    with pytest.raises(InventoryError, match="aliases count each time"):
        one(f"web: {{vars: {{a: &a {'x' * 100_000}, b: [{many}]}}}}\n", "h.yml")


def test_ranges():
    assert list(expand("n[0:6:3]x[a:b]", "f", 1)) == ["n0xa", "n0xb", "n3xa", "n3xb", "n6xa", "n6xb"]
    assert list(expand("w[08:11]", "f", 1)) == ["w08", "w09", "w10", "w11"]


ANSIBLE = """
import json, sys, warnings
warnings.simplefilter("ignore")
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
paths, patterns = json.loads(sys.argv[1])
found = {}
for path in paths:
    manager = InventoryManager(loader=DataLoader(), sources=[path])
    found[path] = {
        "groups": {name: [h.name for h in group.get_hosts()] for name, group in manager.groups.items()},
        "selected": {pattern: [h.name for h in manager.get_hosts(pattern)] for pattern in patterns},
        "vars": {
            h.name: {k: v for k, v in h.vars.items() if not k.startswith("inventory_")} for h in manager.get_hosts()
        },
    }
print(json.dumps(found, default=str))
"""


def test_ansible_reads_the_same(tmp_path: Path):
    """The same text through ansible-core (a process of its own) gives the same groups, variables and selections."""
    files = {"hosts.ini": INI, "hosts.yml": YAML}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path / name) for name in files]
    done = subprocess.run(
        [sys.executable, "-c", ANSIBLE, json.dumps([paths, PATTERNS])], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for path, theirs in json.loads(done.stdout).items():
        built = one(files[Path(path).name], path)
        groups = built.groups()
        assert {n: sorted(h) for n, h in theirs["groups"].items()} == {n: sorted(h) for n, h in groups.items()}
        assert theirs["vars"] == built.hosts
        selector = Selector(list(built.hosts), groups)
        for pattern in PATTERNS:
            assert sorted(selector.select([pattern])) == sorted(theirs["selected"][pattern]), pattern
