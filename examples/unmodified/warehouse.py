"""A tool server: a warehouse whose shelves are counted, whose labels are set, whose goods are sent.

It speaks the Model Context Protocol over standard input and output and knows nothing of Agent
Executor. What it does to the world are lines in the file EFFECTS.
"""

import os
import time
from pathlib import Path

from mcp.server.fastmcp import FastMCP

EFFECTS = Path(os.environ.get("EFFECTS", "effects.txt"))
SECONDS = float(os.environ.get("TOOL_SECONDS", "0"))
server = FastMCP("warehouse", log_level="ERROR")


def effect(line: str) -> None:
    """Do something that the world can see, and take a while to say so."""
    with EFFECTS.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    time.sleep(SECONDS)


@server.tool()
def count_shelf(shelf: int) -> str:
    """Count what lies on a shelf. Changes nothing."""
    return f"shelf {shelf}: {shelf * 7 % 11} boxes"


@server.tool()
def label_shelf(shelf: int, label: str) -> str:
    """Put a label on a shelf, in place of the one it has."""
    effect(f"label {shelf} {label}")
    return f"shelf {shelf} is labeled {label}"


@server.tool()
def send_goods(shelf: int) -> str:
    """Send what lies on a shelf to the customer. It cannot be taken back."""
    effect(f"send {shelf}")
    return f"what lay on shelf {shelf} is on its way"


if __name__ == "__main__":
    server.run()
