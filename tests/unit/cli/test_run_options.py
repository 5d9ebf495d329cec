"""`llmctl run`: extra variables and inventories as they are sent."""

from __future__ import annotations

import pytest

from llmagentos.cli.run import OUTSIDE, extra_vars, read_inventories
from llmagentos.core.errors import InvalidInput


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


def test_an_inventory_script_is_not_run(tmp_path):
    (tmp_path / "inv").write_text("#!/bin/sh\n")
    with pytest.raises(InvalidInput, match="scripts are not run"):
        read_inventories((str(tmp_path / "inv"),), tmp_path)
