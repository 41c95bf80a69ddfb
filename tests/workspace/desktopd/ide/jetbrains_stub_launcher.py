"""The launcher of the stub: started, and given arguments, as that of an IDE of JetBrains is.

It takes a folder, or ``--line`` and ``--column`` with a file; a stub that runs already is handed
them. Its port is that of the settings which it was prepared with.
"""

from __future__ import annotations

import argparse
import json
import shlex
import socket
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[4]


def turn(switches: Path, **told: Any) -> None:
    """Change switches; None takes one away."""
    known = json.loads(switches.read_text()) if switches.exists() else {}
    known = {key: value for key, value in (known | told).items() if value is not None}
    new = switches.with_suffix(".new")
    new.write_text(json.dumps(known))
    new.replace(switches)


def product() -> str:
    """What an IDE's folder says of it."""
    launch = [{"os": "Linux", "vmOptionsFilePath": "bin/pycharm64.vmoptions"}]
    told = {"name": "PyCharm", "version": "2026.2", "dataDirectoryName": "PyCharm2026.2"}
    return json.dumps({**told, "launch": launch})


def install(folder: Path, switches: Path, *options: str) -> Path:
    """Put an IDE into a folder, whose program is this stub; where the program is."""
    (folder / "bin").mkdir(parents=True)
    (folder / "product-info.json").write_text(product())
    program = folder / "bin" / "pycharm"
    words = [sys.executable, "-m", __name__, "--switches", str(switches), *options]
    lines = ["#!/bin/sh", f"export PYTHONPATH={shlex.quote(str(ROOT))}"]
    lines.append(f'exec {shlex.join(words)} -- "$@"')
    program.write_text("\n".join(lines) + "\n")
    program.chmod(0o755)
    return program


def configured_port() -> int:
    """The port of the settings in the home folder."""
    settings = Path.home() / ".config/JetBrains/PyCharm2026.2/options/mcpServer.xml"
    options = {
        each.get("name"): each.get("value", "")
        for each in ElementTree.fromstring(settings.read_text()).iter("option")
    }
    assert options["enableMcpServer"] == "true"
    return int(options["mcpServerPort"])


def main() -> None:
    parser = argparse.ArgumentParser(description="A stub of an IDE of JetBrains, for tests.")
    parser.add_argument("--switches", type=Path, required=True)
    parser.add_argument("--version", default="2026.2")
    parser.add_argument("--without", default="")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    told = parser.parse_args()
    port, arguments = configured_port(), told.arguments[1:]
    with socket.socket() as probe:
        is_running = probe.connect_ex(("127.0.0.1", port)) == 0
    if "--line" in arguments:
        turn(told.switches, caret=[int(arguments[1]), int(arguments[3]), arguments[4]])
    else:
        turn(told.switches, folder=arguments[0])
    while is_running and json.loads(told.switches.read_text()).get("slow_launcher"):
        time.sleep(0.1)
    if is_running:
        return
    while json.loads(told.switches.read_text()).get("silent"):
        time.sleep(0.1)
    # Only now: it takes a second, and whoever only hands something over needs nothing of it.
    from tests.workspace.desktopd.ide.jetbrains_stub import serve

    serve(told.switches, told.version, set(filter(None, told.without.split(","))), port)


if __name__ == "__main__":
    main()
