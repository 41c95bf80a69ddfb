"""What tests of every room use."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.leaks import Leftovers


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After all tests the machine is as it was before the first."""
    before = Leftovers.now()
    yield
    before.assert_none_since(seconds=20)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder for unix sockets, whose names may have 107 bytes; pytest's own paths are longer."""
    with tempfile.TemporaryDirectory(prefix="c-") as folder:
        yield Path(folder)
