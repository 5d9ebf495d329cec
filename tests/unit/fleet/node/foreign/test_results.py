"""What Puppet and Salt say of their work, as results; and any text as one clear outcome."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from llmagentos.api.jobs import JobEvent, Recap, TaskResult
from llmagentos.fleet.node.foreign import puppet, salt
from llmagentos.fleet.node.foreign.results import Log, Result

REPORT = """\
--- !ruby/object:Puppet::Transaction::Report
status: failed
logs:
- level: notice
  source: "/Stage[main]/Main/File[/etc/motd]/content"
  message: "\\n--- /etc/motd\\n+++ /tmp/x\\n@@ -1 +1 @@\\n-a\\n+b\\n"
resource_statuses:
  Schedule[daily]: !ruby/object:Puppet::Resource::Status
    resource_type: Schedule
  File[/etc/motd]: !ruby/object:Puppet::Resource::Status
    resource_type: File
    file: "/x/bundle/site.pp"
    line: 3
    changed: true
    out_of_sync: true
    evaluation_time: 0.5
    events:
    - !ruby/object:Puppet::Transaction::Event
      property: :content
      previous_value: "{md5}a"
      desired_value: "{md5}b"
      status: success
      message: content changed
  Exec[x]: {resource_type: Exec, failed: true, out_of_sync: true}
  Notify[y]: {resource_type: Notify, skipped: true, changed: false}
  Package[z]: {resource_type: Package, out_of_sync: false}
  Service[w]: {resource_type: Service, out_of_sync: true, changed: false}
"""


def test_a_report_of_puppet() -> None:
    found = puppet.read(REPORT)
    assert found.error is None
    assert [(each.name, each.kind, each.status) for each in found.results] == [
        ("File[/etc/motd]", "file", "changed"),
        ("Exec[x]", "exec", "failed"),
        ("Notify[y]", "notify", "skipped"),
        ("Package[z]", "package", "ok"),
        ("Service[w]", "service", "changed"),
    ]
    motd = found.results[0]
    assert motd.result["at"] == "site.pp:3"
    assert motd.result["changes"] == [{"property": ":content", "from": "{md5}a", "to": "{md5}b"}]
    assert motd.diffs == ["--- /etc/motd\n+++ /tmp/x\n@@ -1 +1 @@\n-a\n+b\n"]


def test_a_catalog_that_does_not_compile() -> None:
    text = "status: failed\nlogs: [{level: err, message: 'Syntax error at line 1'}]\nresource_statuses: {}\n"
    assert puppet.read(text).error == "Syntax error at line 1"


STATES = {
    "cmd_|-b_|-false_|-run": {
        "result": False,
        "changes": {"retcode": 1},
        "comment": "run",
        "__run_num__": 1,
        "__id__": "b",
    },
    "file_|-a_|-/x_|-managed": {"result": True, "changes": {"diff": "-a\n+b\n"}, "__run_num__": 0, "duration": 250.0},
    "test_|-c_|-c_|-nop": {"result": False, "comment": "One or more requisite failed: web.b", "__run_num__": 2},
    "cmd_|-d_|-d_|-run": {"result": True, "changes": {}, "skip_watch": True, "__run_num__": 3},
    "cmd_|-e_|-e_|-run": {"result": None, "changes": {}, "__run_num__": 4},
    "pkg_|-f_|-f_|-installed": {"result": True, "changes": {}, "__run_num__": 5},
}


def test_states_of_salt() -> None:
    found = salt.read("a warning\n" + json.dumps({"local": STATES}, indent=4) + "\n")
    assert [(each.name, each.status) for each in found.results] == [
        ("file.managed a", "changed"),
        ("cmd.run b", "failed"),
        ("test.nop c", "skipped"),
        ("cmd.run d", "skipped"),
        ("cmd.run e", "changed"),
        ("pkg.installed f", "ok"),
    ]
    assert found.results[0].diffs == ["-a\n+b\n"]
    assert found.results[0].duration_s == 0.25
    assert salt.read('{"local": ["No matching sls found"]}').error == "No matching sls found"


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="{}[]\"':,-!ruby/object \nlocalresource_statuses0", max_size=200))
def test_any_text_is_an_outcome(text: str) -> None:
    for read in (puppet.read, salt.read):
        found = read(text)
        assert found.error or found.results is not None


PLAIN = st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=8)
VALUES = st.recursive(PLAIN, lambda s: st.lists(s) | st.dictionaries(st.text(max_size=8), s), max_leaves=12)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_any_states_are_results(value: object) -> None:
    salt.read(json.dumps({"local": {"a_|-b_|-c_|-d": value}}))
    salt.read(json.dumps({"local": {"a": {"result": value, "changes": value, "comment": value, "duration": value}}}))


def test_results_become_events(tmp_path: Path) -> None:
    log = Log(tmp_path / "events.jsonl")
    log.begin("puppet site.pp")
    results = [
        Result("File[x]", "file", "changed", {"msg": "y"}, ["-a\n+b\n"], 0.5),
        Result("Exec[z]", "exec", "failed"),
    ]
    for result in results:
        log.tell("web1", result)
    log.recap("web1", results)
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    events = [msgspec.json.decode(line, type=JobEvent) for line in lines]
    assert [event.seq for event in events] == list(range(1, 7))
    told = [event for event in events if isinstance(event, TaskResult)]
    assert [(each.task, each.status, each.diff[0].prepared if each.diff else "") for each in told] == [
        ("File[x]", "changed", "-a\n+b\n"),
        ("Exec[z]", "failed", ""),
    ]
    assert isinstance(events[-1], Recap)
    assert (events[-1].hosts["web1"].ok, events[-1].hosts["web1"].failed) == (1, 1)
