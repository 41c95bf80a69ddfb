"""The whole service of one machine in this process: real Ray, a real sandbox, a real desktop."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from pydantic import SecretStr
from websockets.asyncio.client import connect

from controller.app import build
from controller.settings import Settings
from tests.controller.conftest import BEARER, KEY, claim, client
from tests.leaks import Leftovers
from tests.serving import listening
from workspace.errors import Conflict, Unavailable

pytestmark = pytest.mark.anyio


async def test_the_whole_service_and_its_end(tmp_path: Path) -> None:
    before = Leftovers.now()
    settings = Settings(home=tmp_path, api_key=SecretStr(KEY))
    app = build(settings)
    async with app.router.lifespan_context(app), client(app, BEARER) as http:
        second = build(settings)
        with pytest.raises(Conflict, match="Another controller uses"):
            await second.router.lifespan_context(second).__aenter__()
        (node,) = (await http.get("/v1/nodes")).json()
        assert node["slots"] >= 1
        assert (await http.get("/readyz")).json() == {"ready": True}

        made = await claim(http, environment={"WHO": "reader"}, setup=["echo $WHO > made.txt"])
        base = f"/v1/workspaces/{made['id']}"
        assert (await http.get(f"{base}/files?path=made.txt")).content == b"reader\n"
        acted = await http.post(
            f"{base}/actions?settle_ms=1000&observe=frame",
            json=[{"type": "move", "x": 10, "y": 20}, {"type": "screenshot", "format": "png"}],
        )
        assert acted.json()["cursor"] == [10, 20]
        shot = await http.get(f"{base}/screenshot")
        with Image.open(io.BytesIO(shot.content)) as picture:
            assert picture.size == (1280, 800)
        missing = await http.get(f"{base}/files?path=nothing")
        assert (missing.status_code, missing.json()["code"]) == (404, "file_not_found")
        full = await http.put(
            f"{base}/files?path=big", content=b"", headers={"Content-Length": str(5 << 30)}
        )
        assert (full.status_code, full.json()["code"]) == (507, "disk_full")
        assert (await http.get(f"{base}/stats")).json()["pids"] > 1

        launched = (await http.post(f"{base}/applications", json={"name": "mousepad"})).json()
        window = launched["window"]["id"]
        found = await http.get(f"{base}/windows/wait?window_class=MOUSEPAD&seconds=5")
        assert found.json()["id"] == window
        await http.post(f"{base}/windows/{window}/move", json={"x": 100, "y": 120})
        size = {"width": 500, "height": 300}
        resized = (await http.post(f"{base}/windows/{window}/resize", json=size)).json()
        assert resized.items() >= ({"x": 100, "y": 120} | size).items()
        put_away = await http.post(f"{base}/windows/{window}/state", json={"state": "minimised"})
        assert put_away.json()["state"] == ["minimised"]
        unknown = await http.post(f"{base}/applications", json={"name": "mousepda"})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "application_not_found")
        assert (await http.get(f"{base}/windows/wait")).json()["code"] == "invalid_request"
        installed = (await http.get(f"{base}/applications")).json()["applications"]
        assert "org.xfce.mousepad" in [each["name"] for each in installed]

        async with listening(app) as port:
            url = f"ws://127.0.0.1:{port}{base}/vnc?role=view"
            async with connect(url, additional_headers=BEARER, proxy=None) as socket:
                assert await socket.recv() == b"RFB 003.008\n"

        other = await claim(http, wait=False)
        assert (await http.delete(base)).status_code == 204
        gone = await http.get(f"{base}/screenshot")
        assert gone.json()["code"] == "workspace_ended"
        assert other["state"] == "starting"
    before.assert_none_since(seconds=5)


async def test_a_start_without_a_usable_ray_says_so(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, api_key=SecretStr(KEY), ray_address="127.0.0.1:1")
    app = build(settings)
    with pytest.raises(Unavailable, match="Ray"):
        async with app.router.lifespan_context(app):
            pass
    assert not settings.sockets.exists()
