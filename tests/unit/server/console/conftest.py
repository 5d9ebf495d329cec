"""Texts as they are, for the views."""

from __future__ import annotations

from functools import partial

import pytest

from llmagentos.core.i18n import translate
from llmagentos.server.console.words import Translate


@pytest.fixture
def t() -> Translate:
    """English."""
    return partial(translate, "en")
