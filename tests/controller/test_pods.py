"""What a controller makes of its settings of Kubernetes, and how it looks at the cluster once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller import pods
from controller.settings import Settings
from controller.templates import Templates
from tests.kubernetes_api import KubernetesApi
from workspace import backends
from workspace.backends.kube import checks
from workspace.errors import BackendUnavailable, InvalidRequest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesApi]:
    api = KubernetesApi()
    await api.start()
    monkeypatch.setenv("CARREL_KATA_IMAGE", "registry.example/desktop:1")
    monkeypatch.setenv("CARREL_KATA_KUBECONFIG", api.kubeconfig(tmp_path))
    monkeypatch.setenv("CARREL_CLUSTER", "production")
    yield api
    await api.stop()


async def found() -> dict[str, Any] | None:
    return await asyncio.to_thread(pods.settings_of, Settings())


async def test_the_backend_is_made_of_them(api: KubernetesApi) -> None:
    given = await found()
    assert given is not None
    assert given["cluster"] == "production"
    assert given["options"]["image"] == "registry.example/desktop:1"
    await backends.create("kata", **given).aclose()  # type: ignore[attr-defined]  # its own


async def test_a_class_that_is_not_there_is_refused(
    api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARREL_KATA_RUNTIME_CLASS", "kata")
    with pytest.raises(BackendUnavailable, match="no RuntimeClass 'kata'") as caught:
        await found()
    assert "kata-clh" in caught.value.hint


async def test_an_api_that_is_away_keeps_no_controller_from_starting(
    api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "SECONDS", 0.3)
    await api.go_away()
    assert await found() is not None


def test_without_an_image_there_are_no_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pods.settings_of(Settings()) is None
    monkeypatch.setenv("CARREL_BACKEND", "kata")
    with pytest.raises(InvalidRequest, match="CARREL_KATA_IMAGE"):
        pods.settings_of(Settings())


def test_a_setting_that_is_not_usable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARREL_KATA_IMAGE", "x")
    monkeypatch.setenv("CARREL_KATA_PORT", "eighty")
    with pytest.raises(InvalidRequest, match="CARREL_KATA_PORT"):
        pods.options()


def test_templates_that_name_no_backend_have_the_controllers(tmp_path: Path) -> None:
    templates = Templates(tmp_path, backend="kata")
    assert {each.backend for each in templates.all()} == {"kata"}
    (tmp_path / "own.json").write_text('{"name": "own", "backend": "bubblewrap"}')
    assert templates.get("own").backend == "bubblewrap"
    assert Templates(tmp_path).get("desktop").backend == "bubblewrap"
