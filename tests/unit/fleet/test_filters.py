"""The language that chooses nodes: meaning, one clear error with its column, and no text that breaks it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmagentos.api.nodes import Facts, Heartbeat, ModuleUnit, NodeSummary
from llmagentos.fleet import filters
from llmagentos.fleet.filters import FilterError, Values, parse

GIB = 1024**3


def node(name: str = "web1", **more: object) -> Values:
    facts = Facts(
        hostname=f"{name}.example",
        version="0.1.0",
        os="Debian GNU/Linux 12 (bookworm)",
        os_id="debian",
        os_version="12",
        architecture="x86_64",
        cpus=4,
        memory_bytes=8 * GIB,
        disk_bytes=100 * 10**9,
        addresses=["10.0.0.7", "fd00::7"],
        extra={"rack": "R7"},
    )
    labels = {"env": "prod", "empty": ""}
    summary = NodeSummary(
        name=name,
        state="ready",
        joined=1.0,
        seen=2.0,
        os=facts.os,
        cpus=4,
        memory_bytes=8 * GIB,
        load=[0.5],
        queue=0,
        modules=[ModuleUnit("catalogue", "running")],
        version="0.1.0",
        labels=labels,
        groups=filters.groups(facts, labels),
    )
    return {**filters.values(summary, facts, Heartbeat(load=[0.5], memory_available_bytes=GIB)), **more}  # type: ignore[dict-item]


TRUE = [
    "os=debian and mem>4GiB and not gpu",
    "OS = Debian",
    "os != ubuntu",
    "mem>=8GiB and mem <= 8G",
    "disk>99GB",
    "disk<100GiB",
    "cpus=4",
    "cpus > 3.5",
    "os_version >= 11 and os_version < 12.5",
    "version=0.1.0 and version < 0.10",
    "name~web*",
    "name !~ db*",
    "address~10.0.*",
    "label.env=prod",
    "label.env in (test, 'prod')",
    "not label.env=test",
    "label.env",
    "not label.none",
    "label.none != x",
    "extra.rack=r7",
    "module.catalogue=running",
    "group=os_debian and group=os_debian_12 and group=label_env_prod",
    '(os=ubuntu or os=debian) and state="ready"',
    "os=ubuntu and os=alpine or cpus",
    "not (os=ubuntu and cpus)",
    "os_name~'*bookworm*'",
    "load < 1",
]
FALSE = ["gpu", "mem>8GiB", "os=debian and gpu", "uptime>1s", "label.empty", "label.none=x", "not cpus", "os=debian12"]


@pytest.mark.parametrize("text", TRUE)
def test_true(text: str) -> None:
    assert parse(text)(node())


@pytest.mark.parametrize("text", FALSE)
def test_false(text: str) -> None:
    assert not parse(text)(node())


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "expected a fact"),
        ("oss=debian", 1, "no fact 'oss'"),
        ("os=debian an mem>4", 11, "expected `and`, `or` or the end, not 'an'"),
        ("os=debian and", 14, "expected a fact"),
        ("mem>lots", 5, "'lots' is no number"),
        ("mem>", 5, "expected a value"),
        ("(os=debian", 11, "expected `)`"),
        ("os in debian", 7, "expected `(`"),
        ("os in (a b)", 10, "expected `,` or `)`"),
        ('os="debian', 4, "did not expect"),
        ("os=debian)", 10, "expected `and`"),
    ],
)
def test_an_error_says_where(text: str, column: int, message: str) -> None:
    with pytest.raises(FilterError, match=rf"^filter, column {column}: ") as caught:
        parse(text)
    assert message in caught.value.message
    assert caught.value.details["column"] == column


def test_a_close_fact_is_named() -> None:
    with pytest.raises(FilterError) as caught:
        parse("memmory>1")
    assert caught.value.hint == "did you mean 'memory'?"


def test_what_is_too_much_is_refused() -> None:
    for text in ("not " * 200 + "gpu", "(" * 100 + "gpu" + ")" * 100, "os=" + "x" * 2000):
        with pytest.raises(FilterError):
            parse(text)


def test_sizes_and_times() -> None:
    assert filters.number("4GiB") == 4 * GIB == filters.number("4g")
    assert filters.number("4GB") == 4e9
    assert filters.number("2h", time_units=True) == 7200
    assert filters.number("x") is None and filters.number("1parsec") is None
    assert parse("uptime<2d")(node(uptime=86_400.0))


def test_groups_are_names_that_ansible_takes() -> None:
    facts = Facts(
        hostname="h", version="1", os_id="opensuse-leap", os_like="suse opensuse", architecture="x86_64", gpus=["L4"]
    )
    assert filters.groups(facts, {"env": "a.b", "edge": ""}) == [
        "arch_x86_64",
        "gpu",
        "label_edge",
        "label_env_a_b",
        "os_family_opensuse",
        "os_family_opensuse_leap",
        "os_family_suse",
        "os_opensuse_leap",
    ]


PIECES = st.sampled_from(
    ["os", "mem", "label.x", "=", ">", "<=", "~", "(", ")", "and", "or", "not", "in", ",", "4GiB", "'", "x*"]
)


@given(st.one_of(st.text(max_size=80), st.lists(PIECES, max_size=25).map(" ".join)))
def test_any_text_is_an_expression_or_one_error(text: str) -> None:
    try:
        predicate = parse(text)
    except FilterError as error:
        assert 1 <= error.details["column"] <= len(text) + 1
    else:
        assert predicate(node()) in (True, False)
        assert predicate({}) in (True, False)


@given(st.sampled_from(TRUE + FALSE), st.sampled_from(TRUE + FALSE))
def test_and_or_not_are_those_of_logic(left: str, right: str) -> None:
    values = node()
    one, two = bool(parse(left)(values)), bool(parse(right)(values))
    assert bool(parse(f"({left}) and ({right})")(values)) == (one and two)
    assert bool(parse(f"({left}) or ({right})")(values)) == (one or two)
    assert bool(parse(f"not ({left})")(values)) == (not one)
