"""Errors in the language of the page.

Errors are raised in English, with their values in the text; what people meet in the console is translated here, by the
shape of the text. What has no entry, such as a line of an engine or of Ansible, is shown as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from llmagentos.core.errors import LLMAgentOSError
from llmagentos.server.console.words import Translate


@dataclass(frozen=True, slots=True)
class Told:
    """An error as a page shows it."""

    message: str
    hint: str | None


def told(error: LLMAgentOSError, t: Translate) -> Told:
    """`error` in the language of `t`."""
    return Told(spoken(error.message, t), spoken(error.hint, t) if error.hint else None)


def spoken(text: str, t: Translate) -> str:
    """`text` in the language of `t`, if its shape is known."""
    for shape, index in _shapes():
        if (found := shape.fullmatch(text)) is not None:
            return _all(t)[index].format(**found.groupdict())
    return text


@cache
def _shapes() -> list[tuple[re.Pattern[str], int]]:
    return [(_shape(text), index) for index, text in enumerate(_all(lambda text, **_: text))]


def _shape(text: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", text)
    made = [f"(?P<{part}>.+)" if number % 2 else re.escape(part) for number, part in enumerate(parts)]
    return re.compile("".join(made), re.DOTALL)


def _all(t: Callable[..., str]) -> list[str]:
    """Those of one shape stand before those that would match it as well."""
    return [*_missing(t), *_refused(t), *_wrong(t), *_schedules(t), *_hints(t)]


def _missing(t: Callable[..., str]) -> list[str]:
    return [
        t("there is no run {name}"),
        t("several runs begin with {prefix}"),
        t("{name} is not the id of a run"),
        t("there is no agent {name}"),
        t("there is no session {name} with the agent {agent}"),
        t("there is no fact {name}"),
        t("there is no job template {name}"),
        t("there is no job {name}"),
        t("{name} is not a job's number"),
        t("there is no node {name}"),
        t("there is no schedule {name}"),
        t("there is no model {name}; there are {models}"),
        t("there is no time zone {name} on the server"),
        t("there is no parameter {name}"),
        t("there is no {path}"),
        t("{path} does not take {method}"),
    ]


def _refused(t: Callable[..., str]) -> list[str]:
    return [
        t("{who} may not do this: it needs the permission {permission}"),
        t("{who} may not follow {what}"),
        t("{who} may not launch {template}"),
        t("{who} submitted job {number}: somebody else has to approve it"),
        t("{who} sees only what is their own"),
        t("{approval} was already denied by {who}"),
        t("{approval} was already approved by {who}"),
        t("the session {name} still works on a request"),
        t("{model} is not loaded here: another system serves it"),
        t("{count} calls use {model} or wait for it"),
        t("the agent {name} has no long-term memory"),
        t("an unexpected error in the server"),
        t("the database does not answer: {error}"),
        t("a change with the console's cookie must come from the console, not from {origin}"),
        t("a login must come from the console, not from {origin}"),
    ]


def _wrong(t: Callable[..., str]) -> list[str]:
    return [
        t("the parameter {name} is required"),
        t("the parameter {name} has to be one of {choices}, not {value}"),
        t("the parameter {name} has to be a whole number, not {value}"),
        t("the parameter {name} has to be a number, not {value}"),
        t("the parameter {name} has to be at least {least}, not {value}"),
        t("the parameter {name} may be at most {most}, not {value}"),
        t("the parameter {name} has to match {regex}: {value} does not"),
        t("filter, column {column}: there is no fact {name}"),
        t("filter, column {column}: {message}"),
        t("this request does not fit: {error}"),
        t("range must be one of {ranges}, not {value}"),
        t("the answer is approve or deny, not {value}"),
        t("cannot connect to {address}: {error}"),
    ]


def _schedules(t: Callable[..., str]) -> list[str]:
    return [
        t("{text} cannot be a schedule's name"),
        t("{text} is no cron expression: {error}"),
        t("the cron expression {text} never fires"),
        t("{text} is no span of time: write 90s, 30m, 12h or 7d"),
        t("a schedule has either a cron expression or an interval"),
        t("a schedule has either a job or a template"),
        t("an interval is between 10s and 366d"),
        t("times are late by at most 24h"),
        t("a jitter of {jitter} s is longer than the interval of {interval} s"),
        t("there is a schedule {name} already"),
        t("the job of a schedule has neither secrets nor an idempotency key"),
        t("the template {template} asks for the secret {name}, which no schedule keeps"),
    ]


def _hints(t: Callable[..., str]) -> list[str]:
    return [
        t("did you mean {name}?"),
        t("{command} lists them"),
        t("{command} lists runs"),
        t("{command} lists models"),
        t("{agents} lists agents, {apply} makes one"),
        t("letters, digits, . _ -"),
        t("minute hour day-of-month month day-of-week, like '30 2 * * MON-FRI'"),
        t("a name of the IANA data, like Europe/Berlin"),
        t("use a token of a kind that may; SECURITY.md has the table"),
        t("the server's log has the details"),
        t("an administrator may name a user"),
        t("these may: {who}"),
        t("facts: {names}"),
        t("somebody else may have been first"),
        t("its own tools load and unload it"),
    ]
