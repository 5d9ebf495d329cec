"""Every text for people has a Chinese translation, with the same fields; none is left over or out of order."""

from __future__ import annotations

import ast
import json
import re
import string
from collections.abc import Iterator
from pathlib import Path

import jinja2
import jinja2.nodes

from llmagentos.cli.main import COMMANDS, SECTIONS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "llmagentos"
CATALOG = SOURCE / "locale" / "zh-CN.json"
_CALLS = frozenset({"tr", "t", "translate"})
_HAN = re.compile(r"[\u3400-\u9fff]")


def texts_in_python(code: str) -> Iterator[str]:
    """The literal text of each `tr("...")`, `t("...")`, `translate(language, "...")`; names of columns and fields."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        position = 1 if name == "translate" else 0
        if name in _CALLS and len(node.args) > position:
            yield from _literals([node.args[position]])
        if name == "table" and node.args and isinstance(node.args[0], ast.List | ast.Tuple):
            yield from _literals(node.args[0].elts)
        if name == "fields":
            pairs = [inner for inner in ast.walk(node) if isinstance(inner, ast.Tuple) and len(inner.elts) == 2]
            yield from _literals([pair.elts[0] for pair in pairs])


def _literals(nodes: list[ast.expr]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def texts_in_template(source: str) -> Iterator[str]:
    """The literal text of each `t("...")` in a Jinja template."""
    for call in jinja2.Environment(autoescape=True).parse(source).find_all(jinja2.nodes.Call):
        if isinstance(call.node, jinja2.nodes.Name) and call.node.name == "t" and call.args:
            argument = call.args[0]
            if isinstance(argument, jinja2.nodes.Const):
                yield argument.value


def bare_words(source: str) -> list[str]:
    """Words that a template shows without `t(...)`."""
    shown = " ".join(
        re.sub(r"<!--.*?-->|<[^>]*>", " ", data.data, flags=re.S)
        for data in jinja2.Environment(autoescape=True)
        .parse(re.sub(r"<(\w+)[^<>]*>", _quiet, source))
        .find_all(jinja2.nodes.TemplateData)
    )
    return [word for word in re.findall(r"[A-Za-z]{3,}", shown) if word not in _NAMES]


_NAMES = frozenset({"LLMAgentOS", "English", "UTC", "doctype", "html"})


def _quiet(tag: re.Match[str]) -> str:
    """A tag reduced to what it shows: nothing, but the expressions inside stay parseable."""
    return " " + " ".join(re.findall(r"\{[{%].*?[%}]\}", tag.group(0), flags=re.S)) + " "


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def untranslated(texts: Iterator[str], catalog: dict[str, str]) -> list[str]:
    return sorted({text for text in texts if text and not catalog.get(text)})


def all_texts() -> Iterator[str]:
    yield from SECTIONS
    yield from (help_text for _, help_text in COMMANDS.values())
    for path in [*SOURCE.rglob("*.py"), ROOT / "scripts" / "demo.py"]:
        yield from texts_in_python(path.read_text("utf-8"))
    for path in SOURCE.rglob("*.html"):
        yield from texts_in_template(path.read_text("utf-8"))


def catalog() -> dict[str, str]:
    return json.loads(CATALOG.read_text("utf-8"))


def test_every_text_has_a_chinese_entry() -> None:
    assert untranslated(all_texts(), catalog()) == []


def test_no_entry_is_left_over() -> None:
    assert sorted(set(catalog()) - set(all_texts())) == []


def test_fields_are_the_same_in_both_languages() -> None:
    assert [text for text, chinese in catalog().items() if fields(text) != fields(chinese)] == []


def test_entries_are_sorted() -> None:
    assert list(catalog()) == sorted(catalog())


def test_templates_show_no_bare_words() -> None:
    bare = {path.name: words for path in SOURCE.rglob("*.html") if (words := bare_words(path.read_text("utf-8")))}
    assert bare == {}


def test_the_guard_can_fail() -> None:
    code = 'tr("One")\nself.t("Two {n}", n=1)\ntranslate(language, "Three")\ntr(variable)\n'
    assert untranslated(texts_in_python(code), {"One": "一"}) == ["Three", "Two {n}"]
    printed = 'table(["Name", "Age"], rows)\nfields([("Colour", 1), (name, 2)])\n'
    assert untranslated(texts_in_python(printed), {}) == ["Age", "Colour", "Name"]
    template = '<p title="{{ t("Four") }}">{{ t("Five", x=1) }}{% if t("Six") %}{% endif %}</p>'
    assert untranslated(texts_in_template(template), {}) == ["Five", "Four", "Six"]
    assert bare_words('<p class="shown">Hello {{ t("fine") }}</p>') == ["Hello"]
    assert fields("{a} of {b}") != fields("{a}")


def test_translations_are_chinese() -> None:
    allowed = {"ID"}
    assert [t for t, chinese in catalog().items() if t not in allowed and not _HAN.search(chinese)] == []
