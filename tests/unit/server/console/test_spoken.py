"""Errors in the language of the page: by the shape of their text, as they are raised."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from llmagentos.api.templates import Parameter
from llmagentos.core.errors import InvalidInput, LLMAgentOSError
from llmagentos.core.i18n import translate
from llmagentos.fleet import cron, filters, survey
from llmagentos.llm.residence import require_idle, residence_of
from llmagentos.server.console.render import ticks
from llmagentos.server.console.spoken import spoken, told

ENGLISH, CHINESE = partial(translate, "en"), partial(translate, "zh-CN")


def raised(do: Any, *given: Any) -> LLMAgentOSError:
    with pytest.raises(LLMAgentOSError) as caught:
        do(*given)
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        raised(survey.fit, Parameter("n", "int", min=1), 0),
        raised(survey.fit, Parameter("n", "int"), "x"),
        raised(survey.fit, Parameter("n", "choice", choices=["a"]), "b"),
        raised(survey.answers, [Parameter("n")], {}),
        raised(cron.check, "61 * * * *", "UTC"),
        raised(cron.zone_of, "Mars/Olympus"),
        raised(filters.parse, "web"),
        raised(require_idle, "m", 3),
        raised(residence_of, "m", None),
    ],
    ids=lambda error: error.message,
)
def test_what_is_raised_is_told_in_chinese(error: LLMAgentOSError) -> None:
    assert told(error, ENGLISH).message == error.message
    assert told(error, CHINESE).message != error.message


def test_values_stay_as_they_are() -> None:
    assert spoken("there is no run '{name} of {x}'", CHINESE) == "没有运行 '{name} of {x}'"
    assert spoken("there is no run 'a\nb'", CHINESE) == "没有运行 'a\nb'"
    assert spoken("fatal: [web-1]: FAILED!", CHINESE) == "fatal: [web-1]: FAILED!"
    assert told(InvalidInput("x", hint="did you mean 'y'?"), CHINESE).hint == "您是指 'y' 吗？"


def test_commands_in_hints_are_code() -> None:
    assert ticks("use `llmctl ps <x>` & see") == "use <code>llmctl ps &lt;x&gt;</code> &amp; see"
    assert ticks("a lone ` tick <b>") == "a lone ` tick &lt;b&gt;"
