"""The servers that the tests need.

How to run, from the root of the repository:

    pip install ./sdk/python -r sdk/openai/tests/requirements.txt
    cd sdk/openai && AX=../../target/debug/ax pytest
"""

from __future__ import annotations

from real import model, own_server, server

__all__ = ["model", "own_server", "server"]
