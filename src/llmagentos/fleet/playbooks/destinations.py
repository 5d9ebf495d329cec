"""Where a task with `fetch` may have a file, as its own text says: what a node tells of a path is checked against it.

A node could tell any path: the playbook itself, a role's module, somebody's keys. So a file is only written
below a directory that stands in the playbook as a fetch's `dest`, and without `flat` below the node's own name there.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection
from dataclasses import dataclass

_TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.S)
PLAYBOOK_DIR = re.compile(r"^\{\{\s*playbook_dir\s*\}\}/?|^(?:\./+)+")
_HOST = re.compile(r"\{\{\s*(?:inventory_hostname|ansible_host)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Destination:
    """`dest`, `src` and `flat` of a task as they are written; `flat` is None when a template decides."""

    dest: str
    src: str
    flat: bool | None
    any_host: bool = False
    """It may be executed by another node than the host's: delegated."""

    def allows(self, path: str, node: str, hosts: Collection[str] = ()) -> bool:
        """Whether `node`, of a job on `hosts`, may have fetched a file to `path`."""
        if posixpath.normpath(path) != path or path.split("/")[0] == "..":
            return False
        names = {node, "localhost", *(hosts if self.any_host else ())}
        if self.flat is not True and self._matches(f"{self.dest}/", path, names, below=True):
            return True
        if self.flat is False:
            return False
        name = self.src.rsplit("/", 1)[-1] if self.dest.endswith("/") else ""
        return self._matches(self.dest + name, path, names, below=False)

    def places(self, host: str) -> list[str]:
        """The absolute paths that a file of `host` has, where the text says them with nothing but the host's name."""
        found = []
        if self.flat is not True and self.src.startswith("/"):
            found.append(f"{self.dest}/{{{{ inventory_hostname }}}}/{self.src}")
        if self.flat is not False:
            found.append(self.dest + (self.src.rsplit("/", 1)[-1] if self.dest.endswith("/") else ""))
        named = [_HOST.sub(lambda _: host, text) for text in found if text.startswith("/")]
        paths = [posixpath.normpath(f"/{text.lstrip('/')}") for text in named if not _TEMPLATE.search(text)]
        return [path for path in paths if self.allows(path, host)]

    def _matches(self, text: str, path: str, names: Collection[str], *, below: bool) -> bool:
        text = PLAYBOOK_DIR.sub("", text)
        literal = _TEMPLATE.split(text)[0]
        fixed = literal.strip("/")
        if text.startswith("/") and "/" not in literal.lstrip("/"):
            return False  # anywhere on the machine
        if not fixed and text.strip("/") and not _HOST.match(text):
            return False  # anywhere beside the playbook
        hosts = "|".join(sorted(map(re.escape, names)))
        pattern, at = [], 0
        for found in _TEMPLATE.finditer(text):
            pattern.append(_collapsed(text[at : found.start()]))
            pattern.append(f"(?:{hosts})" if _HOST.fullmatch(found[0]) else ".+")
            at = found.end()
        pattern.append(_collapsed(text[at:]))
        whole = re.sub(r"(?<=.)/+$|^/$", "", "".join(pattern))
        whole = f"{whole}/" if below and whole and not whole.endswith("/") else whole
        return re.fullmatch(whole + (f"(?:{hosts})/.+" if below else ""), path, re.S) is not None


def _collapsed(text: str) -> str:
    """The literal text as a pattern for normalised paths."""
    return re.escape(re.sub(r"/(?:\./)+", "/", re.sub(r"/+", "/", text)))
