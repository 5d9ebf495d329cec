"""Host patterns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.core.errors import InvalidInput
from llmagentos.fleet.playbooks.patterns import IMPLICIT, Selector, UnknownHost

HOSTS = ["web1", "web2", "web3", "db1", "db2"]
GROUPS = {
    "all": HOSTS,
    "ungrouped": [],
    "web": ["web1", "web2", "web3"],
    "db": ["db1", "db2"],
    "live": ["web1", "db1"],
}
SELECTOR = Selector(HOSTS, GROUPS)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["all"], HOSTS),
        (["*"], HOSTS),
        (["web"], ["web1", "web2", "web3"]),
        (["web:db"], HOSTS),
        (["db,web1"], ["db1", "db2", "web1"]),
        (["web", "db1"], ["web1", "web2", "web3", "db1"]),
        (["web:!live"], ["web2", "web3"]),
        (["!live"], ["web2", "web3", "db2"]),
        (["web:&live"], ["web1"]),
        (["&live"], ["web1", "db1"]),
        (["!web1:web:&live:db"], ["db1"]),
        (["web*"], ["web1", "web2", "web3"]),
        (["w?b*:!web3"], ["web1", "web2"]),
        (["d*"], ["db1", "db2"]),
        (["*1"], ["web1", "db1"]),
        (["web[0]"], ["web1"]),
        (["web[-1]"], ["web3"]),
        (["web[1:]"], ["web2", "web3"]),
        (["web[0:1]"], ["web1", "web2"]),
        (["web[9]"], []),
        (["web[12]*"], ["web1", "web2"]),
        (["localhost"], ["localhost"]),
        (["ungrouped"], []),
    ],
)
def test_patterns_mean_what_ansible_means(patterns, expected):
    assert SELECTOR.select(patterns) == expected


@pytest.mark.parametrize(
    ("pattern", "message", "hint"),
    [
        ("webb", "unknown host or group 'webb'", "did you mean 'web'?"),
        ("web:!lve", "unknown host or group 'lve'", "did you mean 'live'?"),
        ("~web.*", "regular expression", "wildcards"),
        ("!", "names nothing", None),
        (":", "no host is named", "hosts: all"),
        ("*" * 20, "too complicated", None),
        ("a[0]" * 100, "too complicated", None),
    ],
)
def test_what_is_wrong_is_said(pattern, message, hint):
    with pytest.raises(InvalidInput, match=message) as caught:
        SELECTOR.select([pattern])
    assert hint is None or hint in (caught.value.hint or "")


@given(st.lists(st.text(alphabet="abdew123*?[]!&:,~-.  ", max_size=30), max_size=5))
def test_any_text_selects_known_hosts_or_is_refused(patterns):
    try:
        found = SELECTOR.select(patterns)
    except InvalidInput as error:
        assert error.message
    else:
        assert len(found) == len(set(found))
        assert set(found) <= {*HOSTS, *IMPLICIT}


@given(st.sampled_from(sorted(GROUPS)), st.sampled_from(sorted(GROUPS)))
def test_set_algebra(one, two):
    first, second = set(GROUPS[one]), set(GROUPS[two])
    assert set(SELECTOR.select([f"{one}:{two}"])) == first | second
    assert set(SELECTOR.select([f"{one}:&{two}"])) == first & second
    assert set(SELECTOR.select([f"{one}:!{two}"])) == first - second


def test_the_unknown_host_is_a_detail():
    with pytest.raises(UnknownHost) as caught:
        SELECTOR.select(["nope"])
    assert caught.value.details == {"host": "nope"}
