"""Images of the tests' own, as archives that a container runtime imports: no builder is needed."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from tests.kubernetes.programs import built

PAUSE = "localhost/carrel-tests-pause:1"  # what holds a pod's namespaces


def pause_archive(folder: Path) -> Path:
    """An image of one program that does nothing and reaps whatever there is."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as files:
        files.add(built() / "catatonit", arcname="pause")
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause", "-P"], "User": "65534:65534"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]
    path = folder / "pause.tar"
    with tarfile.open(path, "w") as archive:
        for name, data in (
            ("layer.tar", layer.getvalue()),
            ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            told = tarfile.TarInfo(name)
            told.size = len(data)
            archive.addfile(told, io.BytesIO(data))
    return path
