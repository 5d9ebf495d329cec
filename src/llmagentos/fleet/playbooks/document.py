"""YAML as nodes that know their line. Nothing is constructed, so no tag of a document runs anything.

libyaml is ten times as fast as PyYAML's own parser, but its composer's recursion has no guard: a deeply nested
document would end the process. So the depth is looked at first, by events, which need no recursion.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from llmagentos.core.errors import InvalidInput

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 60
MAX_VALUES = 200_000
MAX_TEXT = 8 * 1024 * 1024
"""Values and characters in one document, each use of an alias counted: a few lines of YAML can stand for billions."""


TRUE = frozenset({"yes", "true", "on", "1", "y", "t"})
FALSE = frozenset({"no", "false", "off", "0", "n", "f"})
"""What Ansible takes for truth values, in lower case."""
_LIBYAML: Any = getattr(yaml, "CSafeLoader", None)
_MERGE = "tag:yaml.org,2002:merge"
_TAGS = frozenset({"!vault", "!vault-encrypted", "!unsafe"})


class PlaybookError(InvalidInput):
    """A playbook or an inventory is not right; the message begins with file:line."""

    code = "bad_playbook"


class InventoryError(PlaybookError):
    """An inventory is not right."""

    code = "bad_inventory"


def line_of(node: Node) -> int:
    """The node's line, from 1."""
    return int(node.start_mark.line) + 1


def fail(file: str, line: int, message: str, *, hint: str | None = None) -> NoReturn:
    """Raise `PlaybookError` for a place."""
    raise PlaybookError(f"{file}:{line}: {message}", hint=hint, file=file, line=line)


def decode(file: str, content: bytes) -> str:
    """Text of a file. Raises `PlaybookError` for what is no UTF-8 or too long."""
    if len(content) > MAX_BYTES:
        fail(file, 1, f"{len(content)} bytes are too many for one file: at most {MAX_BYTES}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        fail(file, line, f"not UTF-8: byte 0x{content[error.start]:02x}", hint="save the file as UTF-8")


def compose(file: str, text: str) -> Node | None:
    """The document's root; None for an empty one. Raises `PlaybookError` with the line for what is not YAML."""
    try:
        root = _composed(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        fail(file, mark.line + 1 if mark else 1, f"not YAML: {problem}", hint=_usual(problem))
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        fail(file, line, f"not YAML: the character U+{_code(error.character):04X} is not allowed")
    except RecursionError:
        fail(file, 1, "not a playbook: nested too deeply")
    except (yaml.YAMLError, ValueError) as error:
        fail(file, 1, f"not YAML: {error}")
    if root is not None:
        _bound(file, root)
        _merge(file, root)
    return root


def _composed(text: str) -> Node | None:
    """By libyaml where it is there. What is deep or wrong is for PyYAML's own parser, whose messages are told."""
    root: Node | None
    if _LIBYAML is not None:
        with contextlib.suppress(yaml.YAMLError, ValueError):
            if _depth(text, _LIBYAML) <= MAX_DEPTH:
                root = yaml.compose(text, Loader=_LIBYAML)
                return root
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    return root


def _depth(text: str, parser: Any) -> int:
    depth = most = 0
    for event in yaml.parse(text, Loader=parser):
        if isinstance(event, yaml.CollectionStartEvent):
            most = max(most, depth := depth + 1)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return most


def _code(character: Any) -> int:
    return character if isinstance(character, int) else ord(str(character)[:1] or "\0")


def _usual(problem: str) -> str | None:
    """What people usually did when the parser says this."""
    if "cannot start any token" in problem and "\\t" in problem:
        return "YAML is indented with spaces, not tabs"
    if "mapping values are not allowed" in problem:
        return "a value with a colon in it needs quotes"
    if "while parsing a flow mapping" in problem or "unhashable" in problem:
        return 'a value that begins with {{ needs quotes: "{{ name }}"'
    return None


def _bound(file: str, root: Node) -> None:
    """Raises when the document stands for too much, aliases followed."""
    waiting: list[tuple[Node, int]] = [(root, 1)]
    count = size = 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        size += len(node.value) if isinstance(node, ScalarNode) else 0
        if depth > MAX_DEPTH:
            fail(file, line_of(node), f"nested deeper than {MAX_DEPTH} levels")
        if size > MAX_TEXT:
            fail(file, line_of(node), f"more than {MAX_TEXT} characters (aliases count each time)")
        if count > MAX_VALUES:
            fail(file, line_of(node), f"more than {MAX_VALUES} values (aliases count each time)")
        if isinstance(node, SequenceNode):
            waiting += [(child, depth + 1) for child in node.value]
        elif isinstance(node, MappingNode):
            waiting += [(child, depth + 1) for pair in node.value for child in pair]


def _merge(file: str, root: Node) -> None:
    """Bring `<<` in, as Ansible does: what it stands for counts where the mapping itself says nothing.

    Raises `PlaybookError` for what no mapping can be merged from, for keys that are no text, and for unknown tags.
    """
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.tag.startswith(("!", "tag:yaml.org,2002:python/")) and node.tag not in _TAGS:
            fail(file, line_of(node), f"the tag {node.tag[:80]} is not known", hint="!vault and !unsafe are")
        if isinstance(node, MappingNode):
            if any(key.tag == _MERGE for key, _ in node.value):
                node.value = _merged(file, node, 0)
            waiting += [value for _, value in node.value]
            for key, _ in node.value:
                if not isinstance(key, ScalarNode):
                    hint = 'a value that begins with {{ needs quotes: "{{ name }}"'
                    fail(file, line_of(key), f"a key has to be text, not {kind(key)}", hint=hint)
        elif isinstance(node, SequenceNode):
            waiting += node.value


def _merged(file: str, node: MappingNode, depth: int) -> list[tuple[Node, Node]]:
    if depth > MAX_DEPTH:
        fail(file, line_of(node), f"merged deeper than {MAX_DEPTH} levels")
    found: dict[str, tuple[Node, Node]] = {}
    own: list[tuple[Node, Node]] = []
    for key, value in node.value:
        if key.tag != _MERGE:
            own.append((key, value))
            continue
        sources = value.value if isinstance(value, SequenceNode) else [value]
        for source in sources:
            if not isinstance(source, MappingNode):
                fail(file, line_of(key), f"<< merges mappings, not {kind(source)}")
            for each in _merged(file, source, depth + 1):
                found.setdefault(str(each[0].value), each)
    for key, _ in own:
        found.pop(str(key.value), None)
    return [*found.values(), *own]


def items(node: MappingNode) -> Iterator[tuple[str, Node, Node]]:
    """Key as text, key's node and value's node of each entry whose key is a scalar."""
    for key, value in node.value:
        if isinstance(key, ScalarNode):
            yield str(key.value), key, value


def get(node: MappingNode, name: str) -> Node | None:
    """The value of `name`; the last one, as Ansible takes it."""
    found = None
    for key, _, value in items(node):
        if key == name:
            found = value
    return found


def is_null(node: Node | None) -> bool:
    """Whether the value is absent or null."""
    return node is None or (isinstance(node, ScalarNode) and node.tag == "tag:yaml.org,2002:null")


def scalar(node: Node | None) -> str | None:
    """The text of a scalar; None for anything else and for null."""
    return str(node.value) if isinstance(node, ScalarNode) and not is_null(node) else None


def texts(node: Node | None) -> list[str] | None:
    """A scalar or a list of scalars as texts; None for anything else."""
    if (one := scalar(node)) is not None:
        return [one]
    if isinstance(node, SequenceNode):
        found = [scalar(child) for child in node.value]
        return [text for text in found if text is not None] if None not in found else None
    return None


def kind(node: Node) -> str:
    """What a node is, for messages."""
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    return "nothing" if is_null(node) else repr(str(node.value)[:40])


class _Values(yaml.constructor.SafeConstructor):
    """Plain values as YAML 1.1 has them, which is what Ansible reads."""


def value(file: str, node: Node) -> Any:
    """The JSON-like value of a node, for variables. Raises `PlaybookError` for tags that stand for something else."""
    if node.tag == "!vault":
        fail(
            file,
            line_of(node),
            "an encrypted value in an inventory cannot be read here",
            hint="put it into group_vars beside the playbook: the node reads those itself",
        )
    if node.tag == "!unsafe":
        return {"__ansible_unsafe": str(node.value)}
    if node.tag.startswith("!"):
        fail(file, line_of(node), f"the tag {node.tag} is not known here")
    if isinstance(node, SequenceNode):
        return [value(file, child) for child in node.value]
    if isinstance(node, MappingNode):
        return {_key(file, key): value(file, child) for key, child in node.value}
    try:
        found = _Values().construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        fail(file, line_of(node), f"{str(node.value)[:40]!r} is not the value it looks like: {error}")
    if found is None or isinstance(found, str | int | float | bool):
        return found
    return str(node.value)


def _key(file: str, node: Node) -> str:
    text = scalar(node)
    if text is None:
        fail(file, line_of(node), "a variable's name has to be text")
    return text
