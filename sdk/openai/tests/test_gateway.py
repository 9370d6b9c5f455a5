"""The same SDK behind the gateway: a program that knows nothing of us is killed on its way."""

from __future__ import annotations

from pathlib import Path

import pytest

import unmodified
from real import ROOT, Model

EXAMPLE = ROOT / "examples/openai-agents/unmodified"
ENVIRONMENT = {"OPENAI_API_KEY": "a key"}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_program_that_is_killed_pays_nothing_twice_and_does_nothing_twice(
    model: Model, tmp_path: Path, seed: int
) -> None:
    unmodified.killed(EXAMPLE, model, tmp_path, seed, env=ENVIRONMENT)
