"""Files of this machine that the task of `llmctl exec` names: they go along, as `ansible` takes them from here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmagentos.cli.output import note
from llmagentos.cli.pack import IGNORED, IGNORED_ENDS, MAX_FILES
from llmagentos.core.errors import InvalidInput, TooLarge
from llmagentos.core.i18n import tr
from llmagentos.fleet.playbooks.arguments import OPTION, short_name
from llmagentos.fleet.playbooks.bundle import MAX_UNPACKED
from llmagentos.fleet.playbooks.lookups import SOURCES, on_the_node

_WHOLE = frozenset({"copy", "assemble"})
"""Task modules that take a directory as well."""
_REMOTE = frozenset({"copy", "unarchive", "assemble", "uri"})
"""Those that take a file of the node when they are told to."""
_OF_SCRIPT = frozenset({"creates", "removes", "chdir", "executable"})
"""Options of `script` that may stand before the program."""
_PLAIN = re.compile(r"[\w./+@%:,-]+")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class _Named:
    """Where a file's name stands: in which text, from where to where, and in which option if it has one to itself."""

    text: str
    start: int
    end: int
    option: str | None = None
    is_word: bool = True
    """Whether it is one of several words, and has quotes when there are blanks in it."""

    @property
    def path(self) -> str:
        found = self.text[self.start : self.end]
        quoted = self.is_word and len(found) > 1 and found[0] == found[-1] and found[0] in "'\""
        return found[1:-1] if quoted else found

    def replaced(self, path: str) -> str:
        """The text with another path."""
        if self.is_word and not _PLAIN.fullmatch(path):
            path = '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return self.text[: self.start] + path + self.text[self.end :]


def taken_along(module: str, value: Any, into: Path, *, here: Path) -> Any:
    """Link the file that the task reads where `llmctl` runs into `into`; what the task has to say to find it there.

    `here` is the directory from which names count. Raises `InvalidInput` when there is no such file, and `TooLarge`.
    """
    short = short_name(module)
    if short not in SOURCES or (named := _named(short, value)) is None or "://" in named.path:
        return value
    if "{{" in named.path or "{%" in named.path:
        raise InvalidInput(
            tr("{module}: {path} is a template, and a file is sent by its name", module=short, path=repr(named.path)),
            hint=tr("a playbook can do that: `llmctl run`"),
        )
    folder = SOURCES[short][1]
    path = _found(short, named.path, here, folder)
    name = path.name or "root"
    _link(path, into / folder / name)
    text = named.replaced(f"{folder}/{name}{'/' if named.path.endswith('/') else ''}")
    return text if named.option is None else {**value, named.option: text}


def _named(module: str, value: Any) -> _Named | None:
    """Where the task names a file of this machine; None when it names none, or one of the node."""
    option = SOURCES[module][0]
    free = module in ("script", "include_vars")
    if isinstance(value, Mapping):
        if on_the_node(module, lambda name: None if value.get(name) is None else str(value[name])):
            return None
        for key in (option, "_raw_params"):
            if isinstance(text := value.get(key), str) and text.strip():
                return _first(text, key) if module == "script" else _Named(text, 0, len(text), key, is_word=False)
        return None
    if not isinstance(value, str):
        return None
    words = {found["name"]: found for found in OPTION.finditer(value) if found["name"]}
    if on_the_node(module, lambda name: words[name]["value"] if name in words else None):
        return None
    if module != "script" and option in words:
        return _Named(value, *words[option].span("value"))
    return _first(value) if free else None


def _first(text: str, option: str | None = None) -> _Named | None:
    """The program of `script`, the file of `include_vars`: the first word that is no option."""
    for found in OPTION.finditer(text):
        if found["name"] not in _OF_SCRIPT:
            start, end = found.span("value")
            return _Named(text, start if found["name"] is None else found.start("name"), end, option)
    return None


def _found(module: str, name: str, here: Path, folder: str) -> Path:
    """The file or directory of that name, looked for where `ansible` looks. Raises `InvalidInput`."""
    try:
        wanted = Path(name).expanduser()
    except RuntimeError:  # ~nobody-we-know: `ansible` takes the name as it is, too
        wanted = Path(name)
    places = [here / wanted] if wanted.parts[:1] == (folder,) else [here / folder / wanted, here / wanted]
    # Not resolved: a link goes along under its own name.
    paths = [Path(os.path.normpath(place)) for place in places]
    path = next((each for each in paths if "\0" not in name and os.access(each, os.F_OK)), None)
    if path is None:
        raise InvalidInput(
            tr("{module}: there is no file {path} here", module=module, path=repr(name)),
            hint=tr("with remote_src=yes it is a file of the node")
            if module in _REMOTE
            else tr("its name counts from the directory in which you are"),
        )
    if path.is_dir() and module not in _WHOLE:
        raise InvalidInput(tr("{module}: {path} is a directory", module=module, path=repr(name)))
    if not path.is_dir() and not path.is_file():
        raise InvalidInput(tr("{path} is neither a file nor a directory", path=repr(name)))
    return path


def _link(path: Path, target: Path) -> None:
    """Have `target` stand for `path`: a link for each file, which is packed as what it points to."""
    unsent: list[str] = []
    count = total = 0
    for count, (place, file) in enumerate(_files(path, unsent), 1):
        if not os.access(file, os.R_OK):
            raise InvalidInput(tr("{path} may not be read", path=file))
        total += file.stat().st_size
        if count > MAX_FILES or total > MAX_UNPACKED:
            raise TooLarge(
                tr("{path} is too large to be sent", path=path),
                hint=tr("at most {count} files of {size} MiB together", count=MAX_FILES, size=MAX_UNPACKED // 1024**2),
            )
        link = target / place
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    if unsent:
        names = ", ".join(unsent[:_SHOWN]) + (", ..." if len(unsent) > _SHOWN else "")
        if not count:
            raise InvalidInput(tr("{path}: this is never sent to nodes: {names}", path=path, names=names))
        note(tr("not sent: {names}", names=names))
    elif not count:
        raise InvalidInput(tr("there are no files in {path}", path=path))


def _files(path: Path, unsent: list[str]) -> Iterator[tuple[str, Path]]:
    """Place below `path` and path of each file; what is not packed for nodes (see `pack`) is named in `unsent`."""
    if path.is_file():
        if path.name.endswith(IGNORED_ENDS):
            unsent.append(path.name)
        else:
            yield "", path
        return
    if path.name in IGNORED:
        unsent.append(f"{path.name}/")
        return
    for root, directories, names in os.walk(path):
        below = Path(root)
        left = [below / each for each in directories if each in IGNORED or (below / each).is_symlink()]
        unsent += [f"{each.relative_to(path)}/" for each in left]
        directories[:] = sorted(each for each in directories if each not in IGNORED)
        for name in sorted(names):
            file = below / name
            if file.is_file() and not name.endswith(IGNORED_ENDS):
                yield file.relative_to(path).as_posix(), file
            else:
                unsent.append(file.relative_to(path).as_posix())
