"""Compose what of Carrel itself is in the image, as it lies there: ``compose.py FOLDER``.

desktopd's source as sandboxes have it, with the filter of system calls; the start script; what
browsers are told, which is also what a pod's own is mounted over. Run while the image is built, in
a folder that has ``workspace/``.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path.cwd()), "/opt/carrel/deps"]

from workspace.backends import manifests, runtime, sandbox  # noqa: E402  # after its path

# Firefox has no policies of its own in sandboxes: only images have one that is not the machine's.
FIREFOX = {
    "policies": {
        "DisableAppUpdate": True,
        "DisableFirefoxStudies": True,
        "DisableTelemetry": True,
        "DontCheckDefaultBrowser": True,
        "OverrideFirstRunPage": "",
        "OverridePostUpdatePage": "",
        "PasswordManagerEnabled": False,
        "PromptForDownloadLocation": False,
        # Of the way out, where there is one.
        "Certificates": {"Install": [f"{manifests.TRUST}/{manifests.AUTHORITY}"]},
        "Proxy": {"Mode": "system"},  # by the environment
    }
}


def main() -> None:
    root = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(runtime.ensure_source(Path(folder)), root / "opt/carrel/src")
    files = sandbox.browser_files(sandbox.POLICY)
    for place in ("firefox", "firefox-esr"):
        files[f"/etc/{place}/policies/policies.json"] = json.dumps(FIREFOX)
    for path, text in files.items():
        target = root / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    shutil.copy("start", root / "opt/carrel/start")
    (root / "opt/carrel/jetbrains").mkdir()
    shutil.copy("prepare", root / "opt/carrel/jetbrains/prepare")
    for path in (root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


main()
