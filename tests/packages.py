"""Packages to be installed where there is no network: wheels, and a registry of npm's."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote

from packaging.requirements import Requirement


def wheel(folder: Path, name: str, files: Mapping[str, str], **about: str) -> None:
    """A wheel of pure Python; ``about`` are ``requires`` and ``command``, as an entry point is."""
    plain = name.replace("-", "_")
    info = f"{plain}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    metadata += f"Requires-Dist: {about['requires']}\n" if "requires" in about else ""
    kept = {
        **files,
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{about.get('command', '')}\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{plain}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in kept.items():
            archive.writestr(path, text)


def wheels_of(folder: Path, name: str) -> None:
    """Wheels of an installed distribution and of all that it requires, made from its files."""
    seen: set[tuple[str, str]] = set()
    left: list[tuple[str, str]] = [(name, "")]
    while left:
        each, extra = left.pop()
        key = (re.sub(r"[-_.]+", "-", each).lower(), extra)
        if key in seen:
            continue
        seen.add(key)
        try:
            found = distribution(each)
        except PackageNotFoundError:
            continue  # for another system or Python
        _repack(folder, found)
        for line in found.requires or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                left += [(wanted.name, one) for one in (wanted.extras or {""})]


def _repack(folder: Path, found: Distribution) -> None:
    tag = re.search(r"^Tag: (.+)$", found.read_text("WHEEL") or "", re.MULTILINE)
    assert tag is not None
    plain = re.sub(r"[-_.]+", "_", found.metadata["Name"])
    with zipfile.ZipFile(folder / f"{plain}-{found.version}-{tag[1]}.whl", "w") as archive:
        for file in found.files or ():
            if file.parts[0] != ".." and file.suffix != ".pyc":
                archive.write(str(found.locate_file(file)), str(file))


@contextmanager
def npm_registry(name: str, files: Mapping[str, str]) -> Iterator[str]:
    """A registry that has one package, version 1.0.0; yields its address."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"package/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    data = packed.getvalue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = data if self.path.endswith(".tgz") else json.dumps(document).encode()
            is_there = unquote(self.path) in (f"/{name}", "/package.tgz")
            self.send_response(200 if is_there else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
        about = json.loads(files["package.json"])
        about["dist"] = {"tarball": f"{url}/package.tgz", "integrity": f"sha512-{digest}"}
        document = {
            "name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": about},
        }  # fmt: skip
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield url
        finally:
            server.shutdown()
            thread.join()
