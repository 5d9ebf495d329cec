"""Job templates: rows of the table, and one as a form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmagentos.api.templates import Parameter, Template
from llmagentos.server.console.words import Translate


def rows(templates: Iterable[Template]) -> list[dict[str, Any]]:
    """One a template."""
    return [
        {
            "name": template.name,
            "version": template.version,
            "description": template.spec.description,
            "playbook": template.spec.job.playbook,
            "parameters": ", ".join(each.name for each in template.spec.parameters),
            "updated": template.updated,
            "updated_by": template.updated_by,
        }
        for template in templates
    ]


def page(template: Template, given: Mapping[str, Sequence[str]] | None, t: Translate) -> dict[str, Any]:
    """One template with its form, filled with what was `given` before, else with the defaults."""
    return {**rows([template])[0], "fields": [_field(each, given, t) for each in template.spec.parameters]}


def _field(parameter: Parameter, given: Mapping[str, Sequence[str]] | None, t: Translate) -> dict[str, Any]:
    if given is not None:
        texts = list(given.get(parameter.name, []))
    else:
        default = parameter.default
        texts = [] if default is None else [str(each) for each in (default if isinstance(default, list) else [default])]
    return {
        "name": parameter.name,
        "type": parameter.type,
        "label": parameter.label or parameter.name,
        "help": " ".join(filter(None, (parameter.help, _allowed(parameter, t)))),
        "required": parameter.required and parameter.default is None and parameter.type != "bool",
        "choices": [{"name": choice, "chosen": choice in texts} for choice in parameter.choices],
        "checked": bool(texts) and texts[-1].lower() in ("true", "on", "yes", "1"),
        "text": texts[-1] if texts else "",
        "step": "any" if parameter.type == "float" else "1",
        "min": None if parameter.min is None else f"{parameter.min:g}",
        "max": None if parameter.max is None else f"{parameter.max:g}",
    }


def _allowed(parameter: Parameter, t: Translate) -> str:
    found = []
    texts = parameter.type in ("string", "secret")
    if parameter.min is not None:
        least = f"{parameter.min:g}"
        found.append(t("At least {value} characters.", value=least) if texts else t("At least {value}.", value=least))
    if parameter.max is not None:
        most = f"{parameter.max:g}"
        found.append(t("At most {value} characters.", value=most) if texts else t("At most {value}.", value=most))
    if parameter.regex is not None:
        found.append(t("Has to match {value}", value=parameter.regex))
    return " ".join(found)
