# SPDX-License-Identifier: GPL-3.0-or-later
# Part of the program that runs playbooks with ansible-core; see LICENSE beside this package.
"""`vars_prompt`: the answers came along with the job; what becomes of them is for ansible-core to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleError
from ansible.utils.display import Display


def install(answers: Mapping[str, Sequence[Mapping[str, str | None]]]) -> None:
    """From now on. `answers` are those to each variable, in the order of the plays that ask for it."""
    own = Display.do_var_prompt
    left = {name: list(given) for name, given in answers.items()}

    def do_var_prompt(
        display: Any,
        varname: str,
        private: bool = True,
        prompt: str | None = None,
        encrypt: str | None = None,
        confirm: bool = False,
        salt_size: int | None = None,
        salt: str | None = None,
        default: str | None = None,
        unsafe: bool = False,
    ) -> Any:
        given = left[varname].pop(0) if left.get(varname) else {}
        answer = given.get("value")
        if answer is None and default is None:
            raise AnsibleError(
                f"vars_prompt asks for {varname!r}, and nobody is here to answer: set it with -e {varname}=..."
            )
        told = default if answer is None else answer
        warning, display.warning = display.warning, lambda *_, **__: None  # that it does not ask
        try:
            return own(
                display, varname, private, prompt, encrypt, False, salt_size, salt or given.get("salt"), told, unsafe
            )
        finally:
            display.warning = warning

    Display.do_var_prompt = do_var_prompt
