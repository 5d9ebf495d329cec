"""Errors cross the wire as themselves, whichever room they come from."""

from __future__ import annotations

import importlib
import pkgutil
from importlib.util import find_spec

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmagentos
from llmagentos.api import problem
from llmagentos.core import errors
from llmagentos.core.errors import LLMAgentOSError, Unavailable


def import_every_room() -> None:
    """So that the tree is whole, whatever else was imported before. There is not a build of torch for every machine."""
    without = (".migrations", ".engines.transformers.") if find_spec("torch") is None else (".migrations",)
    for module in pkgutil.walk_packages(llmagentos.__path__, "llmagentos."):
        if not module.name.endswith(".__main__") and not any(part in module.name for part in without):
            importlib.import_module(module.name)


import_every_room()


def leaves(root: type[LLMAgentOSError]) -> list[type[LLMAgentOSError]]:
    children = root.__subclasses__()
    return [root] + [leaf for child in children for leaf in leaves(child)]


@pytest.mark.parametrize("kind", leaves(LLMAgentOSError), ids=lambda kind: kind.__name__)
def test_an_error_crosses_the_wire_as_its_own_class(kind: type[LLMAgentOSError]) -> None:
    details = {"retry_after": 2.5} if issubclass(kind, errors.TooManyRequests) else {"remote_type": "ValueError"}
    error = kind("no such thing: 'x'", hint="try y", **details)
    copy = problem.decode(error.status, problem.encode(error))
    assert type(copy).code == kind.code
    assert (copy.message, copy.hint, copy.details) == (error.message, error.hint, error.details)


def test_codes_are_unique_within_the_core_tree() -> None:
    own = [kind for kind in leaves(LLMAgentOSError) if kind.__module__ == errors.__name__]
    assert len({kind.code for kind in own}) == len(own)


def test_callers_errors_exit_with_2_and_are_4xx() -> None:
    for kind in leaves(errors.CallerError):
        assert 400 <= kind.status < 500
    assert errors.InvalidInput.exit_code == errors.ConfigError.exit_code == 2


@given(status=st.integers(400, 599), body=st.binary(max_size=200))
def test_any_body_becomes_an_error(status: int, body: bytes) -> None:
    error = problem.decode(status, body)
    assert isinstance(error, LLMAgentOSError)
    assert isinstance(error.message, str)


@given(
    document=st.dictionaries(st.sampled_from(["type", "detail", "hint", "status", "self", "message"]), st.integers())
)
def test_a_problem_with_odd_members_is_still_an_error(document: dict[str, int]) -> None:
    import msgspec

    assert isinstance(problem.decode(400, msgspec.json.encode(document)), LLMAgentOSError)


def test_nearest() -> None:
    assert errors.nearest("serviec", ["service", "shell"]) == "service"
    assert errors.nearest("zzz", ["service", "shell"]) is None


def test_an_error_of_a_room_that_is_not_here_keeps_its_name_and_who_must_act() -> None:
    document = {"type": "urn:llmagentos:problem:cellar_flooded", "status": 507, "detail": "no room"}
    error = problem.decode(507, msgspec.json.encode(document))
    assert isinstance(error, Unavailable)
    assert (error.code, error.status, error.message, error.exit_code) == ("cellar_flooded", 507, "no room", 1)
    assert msgspec.json.decode(problem.encode(error)) == {**document, "title": "cellar flooded"}
    assert (Unavailable.code, Unavailable.status) == ("unavailable", 503)
