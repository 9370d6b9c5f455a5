"""Claude Code as it is: this says where its tools are, and becomes it.

What it finds in its home would differ from attempt to attempt, so the home is a new one each time.
"""

import json
import os
import shutil
import uuid
from pathlib import Path


def main() -> None:
    """Become Claude Code."""
    workspace = Path(os.environ["AX_WORKSPACE"])
    home = workspace.with_name(workspace.name + ".claude")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    server = {"type": "http", "url": os.environ["AX_MCP_WAREHOUSE_URL"]}
    # The same in each attempt of an execution.
    name = f"{os.environ['AX_SESSION']}/{os.environ['AX_EXECUTION']}"
    options = {
        "--mcp-config": json.dumps({"mcpServers": {"warehouse": server}}),
        "--session-id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
        "--model": "claude-sonnet-4-5",
        "--permission-mode": "bypassPermissions",
    }
    os.environ["CLAUDE_CONFIG_DIR"] = str(home)
    os.environ["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] = "1"
    os.environ["ENABLE_TOOL_SEARCH"] = "false"
    os.environ["IS_SANDBOX"] = "1"
    os.chdir(workspace)
    words = [word for option in options.items() for word in option]
    os.execvp("claude", ["claude", "-p", *words, "--strict-mcp-config", "--no-session-persistence"])


if __name__ == "__main__":
    main()
