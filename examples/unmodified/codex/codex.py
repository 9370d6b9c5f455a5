"""Codex as it is: this writes its configuration, and becomes it.

What it finds in its home would differ from attempt to attempt, so the home is a new one each time.
The answer is its last message; all that it says on the way goes to standard error.
"""

import json
import os
import shutil
from pathlib import Path

CONFIG = """
model = "gpt-5"
model_provider = "gateway"
check_for_update_on_startup = false
web_search = "disabled"

[analytics]
enabled = false

[model_providers.gateway]
name = "gateway"
base_url = {models}
env_key = "OPENAI_API_KEY"
wire_api = "responses"

[mcp_servers.warehouse]
url = {tools}
required = true
"""


def main() -> None:
    """Become Codex."""
    workspace = Path(os.environ["AX_WORKSPACE"])
    home = workspace.with_name(workspace.name + ".codex")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    models = json.dumps(os.environ["OPENAI_BASE_URL"])
    tools = json.dumps(os.environ["AX_MCP_WAREHOUSE_URL"])
    (home / "config.toml").write_text(CONFIG.format(models=models, tools=tools))
    os.environ["CODEX_HOME"] = str(home)
    options = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
    os.execvp("codex", ["codex", "exec", *options, "--ephemeral", "--cd", str(workspace), "-"])


if __name__ == "__main__":
    main()
