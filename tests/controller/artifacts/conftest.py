"""Places for artifacts' bytes, each kind of them, and artifacts over them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from controller.artifacts import Artifacts
from controller.artifacts.blobs import Blobs
from controller.artifacts.folder import Folder
from controller.artifacts.quota import Quota
from controller.artifacts.s3 import S3
from controller.store import Store
from tests.s3 import CREDENTIALS, Server, s3_server

MIB = 1 << 20


@pytest.fixture(scope="session")
def s3() -> Iterator[Server]:
    """An S3 server that the tests share, a bucket each."""
    with s3_server() as server:
        yield server


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@dataclass
class Place:
    """Somewhere for blobs, and how a test changes what lies there behind its back."""

    blobs: Blobs
    root: Path
    server: Server | None = None
    bucket: str = ""

    def damage(self, digest: str, data: bytes) -> None:
        if self.server is not None:
            self.server.put(self.bucket, f"some/where/{digest}", data)
        else:
            (self.root / digest[:2] / digest[2:4] / digest).write_bytes(data)

    def there(self) -> list[str]:
        """The digests that are there."""
        if self.server is not None:
            return sorted(key.rpartition("/")[2] for key in self.server.keys(self.bucket))
        files = [path for path in self.root.rglob("*") if path.is_file()]
        assert [path for path in files if path.parent.name == "new"] == []
        return sorted(path.name for path in files)


@pytest.fixture(params=["folder", "s3"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """Each kind of place, running."""
    if request.param == "folder":
        made = Place(Folder(tmp_path / "kept"), tmp_path / "kept")
    else:
        request.getfixturevalue("credentials")
        server = request.getfixturevalue("s3")
        bucket = server.bucket()
        blobs = S3(f"s3://{bucket}/some/where/", endpoint=server.url)
        made = Place(blobs, tmp_path, server, bucket)
    async with made.blobs.run():
        yield made


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    store = Store(database_url)
    async with store.run():
        yield store


def quota(*, of_workspace: int = 64 * MIB, in_all: int = 256 * MIB) -> Quota:
    return Quota(of_workspace=of_workspace, in_all=in_all)


@pytest.fixture
async def artifacts(store: Store, place: Place, tmp_path: Path) -> AsyncIterator[Artifacts]:
    """Artifacts in each kind of place."""
    made = Artifacts(store, place.blobs, tmp_path / "incoming", quota())
    await made._spool.begin()  # the place runs already
    yield made
    assert list((tmp_path / "incoming").iterdir()) == []


async def pieces(*each: bytes) -> AsyncIterator[bytes]:
    for piece in each:
        yield piece
