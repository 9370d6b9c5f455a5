"""Fixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fake_runtime import Runtime


@pytest.fixture
def agent(tmp_path: Path) -> Callable[..., Runtime]:
    """Make a runtime for an agent, given by its source."""

    def make(source: str, **options: Any) -> Runtime:
        return Runtime(tmp_path, source, **options)

    return make
