"""OpenCode as it is: this writes its configuration, and becomes it.

What it finds in its home would differ from attempt to attempt, so the home is a new one each time.
"""

import json
import os
import shutil
from pathlib import Path


def config() -> dict:
    """Say where its model and its tools are."""
    model = {"name": "Model", "tool_call": True, "limit": {"context": 200_000, "output": 8_192}}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {
            "baseURL": os.environ["OPENAI_BASE_URL"],
            "apiKey": os.environ["OPENAI_API_KEY"],
        },
        "models": {"model": model},
    }
    server = {"type": "remote", "url": os.environ["AX_MCP_WAREHOUSE_URL"], "oauth": False}
    return {
        "model": "gateway/model",
        "small_model": "gateway/model",
        "provider": {"gateway": provider},
        "mcp": {"warehouse": server},
        "autoupdate": False,
        "share": "disabled",
        "permission": "allow",
    }


def main() -> None:
    """Become OpenCode."""
    workspace = Path(os.environ["AX_WORKSPACE"])
    home = workspace.with_name(workspace.name + ".opencode")
    shutil.rmtree(home, ignore_errors=True)
    for name in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"]:
        directory = home / name.lower()
        directory.mkdir(parents=True)
        os.environ[name] = str(directory)
    file = home / "opencode.json"
    file.write_text(json.dumps(config()))
    os.environ["OPENCODE_CONFIG"] = str(file)
    os.environ["OPENCODE_DISABLE_MODELS_FETCH"] = "1"
    # A title of our own, or a model is asked for one.
    options = ["--pure", "--title", "Boxes", "--dir", str(workspace)]
    os.execvp("opencode", ["opencode", "run", *options])


if __name__ == "__main__":
    main()
