"""The Gemini CLI as it is: this writes its settings, and becomes it.

What it finds in its home would differ from attempt to attempt, so the home is a new one each time.
"""

import json
import os
import shutil
import sys
import uuid
from pathlib import Path


def settings() -> dict:
    """Say where its tools are, and what it leaves alone."""
    return {
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "mcpServers": {"warehouse": {"httpUrl": os.environ["AX_MCP_WAREHOUSE_URL"], "trust": True}},
    }


def main() -> None:
    """Become the Gemini CLI."""
    workspace = Path(os.environ["AX_WORKSPACE"])
    home = workspace.with_name(workspace.name + ".gemini-cli")
    shutil.rmtree(home, ignore_errors=True)
    (home / ".gemini").mkdir(parents=True)
    (home / ".gemini/settings.json").write_text(json.dumps(settings()))
    os.environ["GEMINI_CLI_HOME"] = str(home)
    os.environ["GEMINI_CLI_TRUST_WORKSPACE"] = "true"
    # The same in each attempt of an execution.
    name = f"{os.environ['AX_SESSION']}/{os.environ['AX_EXECUTION']}"
    options = {
        "--model": "gemini-2.5-flash",
        "--session-id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
        "--prompt": sys.stdin.read(),
    }
    os.chdir(workspace)
    words = [word for option in options.items() for word in option]
    os.execvp("gemini", ["gemini", "--yolo", *words])


if __name__ == "__main__":
    main()
