# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""Loads what the workers of nearly every playbook need, once, in the process that they are forked from."""

from __future__ import annotations

import contextlib
import copy
import importlib
import sys
from pathlib import Path
from typing import Any

_MODULES = (
    "ansible.module_utils._internal._json._profiles._module_legacy_c2m",
    "ansible.module_utils._internal._json._profiles._module_legacy_m2c",
    "ansible.parsing.yaml.dumper",
    "ansible.executor.playbook_executor",
    "ansible.utils.encrypt",
    "ansible.plugins.vars",
    "ansible.utils.unicode",
)
_PLUGINS = {
    "action": "normal assert command copy debug fail gather_facts include_vars package service set_fact shell template",
    "become": "sudo su",
    "cache": "memory",
    "connection": "local",
    "inventory": "host_list script auto yaml ini",
    "lookup": "env file first_found items template vars",
    "shell": "sh",
    "strategy": "linear",
}
_ASKED_FOR = ("become", "callback", "connection", "shell", "vars")
_OPTIONAL = ("paramiko_ssh", "psrp", "winrm")  # look for other packages when they are loaded, which may come later
_FILTERS, _TESTS = "default basename regex_replace hash urlsplit b64decode", "defined match exists success"


def remember_meta() -> None:
    """Keep what the largest of the collections' metadata says, ansible.builtin's: each run reads it again."""
    from ansible.utils.collection_loader import _collection_finder

    parse = _collection_finder._meta_yml_to_dict
    known: dict[Any, Any] = {}

    def remembered(data: Any, content: Any) -> Any:
        if content[0] != "ansible.builtin":
            return parse(data, content)
        if data not in known:
            known[data] = parse(data, content)
        return known[data]

    _collection_finder._meta_yml_to_dict = remembered


def _copy_less() -> None:
    """Text and numbers that carry tags are as immutable as those that do not: no deep copy needs copies of them."""
    from ansible.module_utils._internal import _datatag

    for name in ("Str", "Bytes", "Int", "Float"):
        if (kind := getattr(_datatag, f"_AnsibleTagged{name}", None)) is not None:
            copy._deepcopy_dispatch[kind] = copy._deepcopy_atomic  # type: ignore[attr-defined]


def preload() -> None:
    """Load them. What is missing here is loaded later, as always; names differ between releases."""
    from ansible._internal._templating._engine import TemplateEngine
    from ansible.plugins import loader

    _copy_less()
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for kind, names in _PLUGINS.items():
        plugins: Any = getattr(loader, f"{kind}_loader")
        for name in names.split():
            plugins.get(f"ansible.builtin.{name}", class_only=True)
    before = set(sys.modules)
    for kind in _ASKED_FOR:
        plugins = getattr(loader, f"{kind}_loader")
        list(plugins.all(class_only=True))  # every run asks for all of them
        for path in [path for path in plugins._module_cache if Path(path).stem in _OPTIONAL]:
            del plugins._module_cache[path]
    for name in set(sys.modules) - before:
        if name.startswith(tuple(f"ansible.plugins.{kind}." for kind in _ASKED_FOR)) and "llmagentos" not in name:
            del sys.modules[name]  # so that a playbook's own of that name is not taken for this one
    for plugins, names in ((loader.filter_loader, _FILTERS), (loader.test_loader, _TESTS)):
        for name in names.split():
            with contextlib.suppress(KeyError):
                plugins.get(f"ansible.builtin.{name}")
    _ = TemplateEngine().environment.lexer  # kept by its class
