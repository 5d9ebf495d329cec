"""`llmctl run`: extra variables and inventories as they are sent."""

from __future__ import annotations

import pytest

from llmagentos.cli.inventories import OUTSIDE, read_inventories
from llmagentos.cli.job_options import control
from llmagentos.cli.playbook_options import extra_vars
from llmagentos.core.errors import InvalidInput
from llmagentos.fleet.playbooks.sources import read


def test_extra_variables_in_all_their_forms(tmp_path):
    file = tmp_path / "vars.yml"
    file.write_text("a: 1\nb: [x]\n")
    given = (f"@{file}", "b=2 c='two words'", '{"d": {"e": null}}', "greeting=你好=")
    assert extra_vars(given) == {"a": 1, "b": "2", "c": "two words", "d": {"e": None}, "greeting": "你好="}


@pytest.mark.parametrize("given", ["novalue", "a='b", "{a: ", "[1]", "@/nonexistent/file", "{1: 2}", "a-b=c"])
def test_extra_variables_that_are_none(given):
    with pytest.raises(InvalidInput):
        extra_vars((given,))


def test_inventories(tmp_path):
    play, outside = tmp_path / "play", tmp_path / "elsewhere"
    (play / "inv" / "host_vars").mkdir(parents=True)
    (outside / "group_vars").mkdir(parents=True)
    (play / "inv" / "hosts.yml").write_text("web: {hosts: {a: }}")
    (outside / "hosts").write_text("a\n")
    sources, more = read_inventories((str(play / "inv" / "hosts.yml"), str(outside), "n1, n2"), play)
    assert [(source.text, source.directory) for source in sources] == [
        ("web: {hosts: {a: }}", "inv"),
        ("a\n", OUTSIDE),
        ("n1\nn2", None),
    ]
    assert more == {f"{OUTSIDE}/group_vars": outside / "group_vars"}


def test_a_program_that_may_not_be_executed_is_told(tmp_path):
    (tmp_path / "inv").write_text("#!/bin/sh\n")
    with pytest.raises(InvalidInput, match="may not be executed"):
        read_inventories((str(tmp_path / "inv"),), tmp_path)


PROGRAM = """\
#!/bin/sh
echo '{"web": {"hosts": ["web1", "web2"], "vars": {"port": 80}}, "_meta": {"hostvars": {"web1": {"rack": 7}}}}'
"""
PLUGIN = """\
plugin: ansible.builtin.generator
hosts: {name: "{{ stage }}{{ number }}"}
layers: {stage: [web, db], number: [1, 2]}
"""


def test_programs_and_plugins_are_run_here(tmp_path):
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "web.yml").write_text("greeting: hello\n")
    (tmp_path / "hosts.sh").write_text(PROGRAM)
    (tmp_path / "hosts.sh").chmod(0o755)
    (tmp_path / "rack.yml").write_text(PLUGIN)
    sources, more = read_inventories((str(tmp_path / "hosts.sh"), str(tmp_path / "rack.yml")), tmp_path)
    assert more == {}
    found = read(sources)
    assert set(found.hosts) == {"web1", "web2", "db1", "db2"}
    assert found.hosts["web1"] == {"rack": 7}
    assert found.variables["web"] == {"port": 80, "greeting": "hello"}


def test_a_program_that_fails_or_hangs_is_ended(tmp_path):
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nsleep 60\n")
    slow.chmod(0o755)
    with pytest.raises(InvalidInput, match=r"no inventory after 0\.5 s"):
        read_inventories((str(slow),), tmp_path, timeout_s=0.5)
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no such cloud >&2; exit 3\n")
    broken.chmod(0o755)
    with pytest.raises(InvalidInput, match="ansible-inventory ended with"):
        read_inventories((str(broken),), tmp_path)


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ({"batches": "1,200%"}, "--batch: '200%' is neither"),
        ({"batches": "x"}, "--batch: 'x' is neither"),
        ({"batches": "1", "max_failures": "-1"}, "--max-failures: '-1' is neither"),
        ({"retries": 1, "retry_on": "failed,foo"}, "there is no end 'foo'"),
    ],
)
def test_what_is_no_rollout_or_retry_is_named(typed, told):
    with pytest.raises(InvalidInput, match=told):
        control(**typed)
