"""Screen, keyboard and mouse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ParamSpec

import httpx

from workspace import actions as a
from workspace import frames
from workspace.calls.wire import Wire, parse
from workspace.errors import DesktopLost
from workspace.models import Screen, ScreenChange
from workspace.transport import asked

P = ParamSpec("P")


class ScreenCalls:
    """What is done on a desktop's screen, and seen of it."""

    _wire: Wire

    async def act(
        self,
        *actions: a.Action,
        settle_ms: int = 1500,
        observe: a.Observe = "frame",
    ) -> a.Observation:
        """Play the actions in order, stopping at the first failure; see ``CanAct.act``.

        Once they are done, wait until the screen has changed and come to rest, ``settle_ms`` at
        most (0: do not wait). ``observe="frame"`` brings a screenshot and the effect that was
        seen.
        """
        work = sum(getattr(action, "seconds", 0.0) for action in actions)
        typed = [action.text for action in actions if isinstance(action, a.Type)]
        typed += [str(action.value) for action in actions if isinstance(action, a.SetValue)]
        work += sum(len(text) * 0.05 for text in typed)
        body = await self._wire.call(
            "POST",
            "/actions",
            params={"settle_ms": settle_ms, "observe": observe},
            content=a.ACTIONS.dump_json(list(actions)),
            headers={"Content-Type": "application/json"},
            seconds=work + settle_ms / 1000,
        )
        return parse(a.Observation.model_validate_json, body)

    async def _just(
        self, kind: Callable[P, a.Action], *args: P.args, **fields: P.kwargs
    ) -> a.Observation:
        return await self.act(asked(kind, *args, **fields), settle_ms=0, observe="none")

    async def screenshot(
        self,
        *,
        format: a.ImageFormat = "jpeg",
        quality: int = 80,
        scale: float = 1.0,
        region: a.Region | None = None,
        cursor: bool = True,
    ) -> bytes:
        """The encoded picture of the screen or of a region of it."""
        _, picture = await self._look(None, format, quality, scale, region, cursor)
        return picture

    async def screenshot_since(
        self,
        frame: str | None,
        *,
        format: a.ImageFormat = "jpeg",
        quality: int = 80,
        scale: float = 1.0,
        region: a.Region | None = None,
        cursor: bool = True,
        passive: bool = False,
    ) -> a.Image | None:
        """The picture as it is now; None if it is still ``frame``, an ``Image.frame`` of before.

        A ``passive`` look does not count as use of the desktop.
        """
        answer, picture = await self._look(frame, format, quality, scale, region, cursor, passive)
        if frame is not None and answer.status_code == httpx.codes.NOT_MODIFIED:
            return None
        return parse(lambda data: frames.image(format, answer.headers, data), picture)

    async def changes_since(
        self,
        frame: str,
        *,
        format: a.ImageFormat = "jpeg",
        quality: int = 80,
        region: a.Region | None = None,
        cursor: bool = True,
    ) -> a.Delta | a.Image | None:
        """What has changed since ``frame``; None if nothing has.

        It is the whole picture if more than half of it has changed, or if the desktop does not
        know that frame any more. Patches that are PNG are exact.
        """
        shot = asked(
            a.Screenshot,
            format=format,
            quality=quality,
            region=region,
            cursor=cursor,
            since=frame,
            delta=True,
        )
        seen = await self.act(shot, settle_ms=0, observe="none")
        if seen.unchanged:
            return None
        if seen.delta is None and seen.screenshot is None:
            raise DesktopLost("The desktop answered what no desktop says.")
        return seen.delta or seen.screenshot

    async def _look(
        self,
        since: str | None,
        format: a.ImageFormat,
        quality: int,
        scale: float,
        region: a.Region | None,
        cursor: bool,
        passive: bool = False,
    ) -> tuple[httpx.Response, bytes]:
        params: dict[str, str | int | float] = {
            "format": format,
            "quality": quality,
            "scale": scale,
            "cursor": str(cursor).lower(),
        }
        if region is not None:
            params |= region.model_dump()
        if since is not None:
            params["since"] = since
        if passive:
            params["passive"] = "true"
        return await self._wire.answer("GET", "/screenshot", params=params)

    async def set_screen(
        self, width: int | None = None, height: int | None = None, *, dpi: int | None = None
    ) -> Screen:
        """Change the screen's size, or its dots per inch; it comes back as it then is."""
        change = asked(ScreenChange, width=width, height=height, dpi=dpi)
        body = await self._wire.call("POST", "/screen", json=change.model_dump())
        return parse(Screen.model_validate_json, body)

    async def zoom(self, region: a.Region, *, width: int | None = None) -> a.Image:
        """A region at the screen's own resolution, as a picture to read."""
        observation = await self._just(a.Zoom, region=region, width=width)
        assert observation.screenshot is not None, "a zoom brings a picture"
        return observation.screenshot

    async def cursor_position(self) -> tuple[int, int]:
        return (await self._just(a.CursorPosition)).cursor

    async def move(
        self, x: int | None = None, y: int | None = None, *, element: str | None = None
    ) -> a.Observation:
        return await self._just(a.Move, x=x, y=y, element=element)

    async def click(
        self,
        x: int | None = None,
        y: int | None = None,
        *,
        element: str | None = None,
        button: a.Button = "left",
        count: int = 1,
        modifiers: Sequence[str] = (),
    ) -> a.Observation:
        return await self._just(
            a.Click,
            x=x,
            y=y,
            element=element,
            button=button,
            count=count,
            modifiers=list(modifiers),
        )

    async def double_click(self, x: int | None = None, y: int | None = None) -> a.Observation:
        return await self.click(x, y, count=2)

    async def right_click(self, x: int | None = None, y: int | None = None) -> a.Observation:
        return await self.click(x, y, button="right")

    async def mouse_down(
        self,
        x: int | None = None,
        y: int | None = None,
        *,
        element: str | None = None,
        button: a.Button = "left",
    ) -> a.Observation:
        return await self._just(a.MouseDown, x=x, y=y, element=element, button=button)

    async def mouse_up(
        self,
        x: int | None = None,
        y: int | None = None,
        *,
        element: str | None = None,
        button: a.Button = "left",
    ) -> a.Observation:
        return await self._just(a.MouseUp, x=x, y=y, element=element, button=button)

    async def drag(
        self,
        *path: tuple[int, int],
        button: a.Button = "left",
        modifiers: Sequence[str] = (),
    ) -> a.Observation:
        return await self._just(a.Drag, path=list(path), button=button, modifiers=list(modifiers))

    async def scroll(
        self,
        x: int | None = None,
        y: int | None = None,
        *,
        element: str | None = None,
        dx: int = 0,
        dy: int = 0,
        modifiers: Sequence[str] = (),
    ) -> a.Observation:
        return await self._just(
            a.Scroll, x=x, y=y, element=element, dx=dx, dy=dy, modifiers=list(modifiers)
        )

    async def focus_element(self, element: str) -> a.Observation:
        """Give an element ("e12", of :meth:`elements`) the keyboard."""
        return await self._just(a.FocusElement, element=element)

    async def set_value(self, element: str, value: str | float) -> a.Observation:
        """Set the text of an entry or the number of a slider, and see that it took it."""
        return await self._just(a.SetValue, element=element, value=value)

    async def invoke(self, element: str, name: str | None = None) -> a.Observation:
        """Have an element do what it is for, or its action of that name."""
        return await self._just(a.Invoke, element=element, name=name)

    async def type(self, text: str) -> a.Observation:
        return await self._just(a.Type, text=text)

    async def key(self, chord: str, *, repeat: int = 1) -> a.Observation:
        return await self._just(a.Key, chord=chord, repeat=repeat)

    async def key_down(self, chord: str) -> a.Observation:
        return await self._just(a.KeyDown, chord=chord)

    async def key_up(self, chord: str) -> a.Observation:
        return await self._just(a.KeyUp, chord=chord)

    async def hold_key(self, chord: str, seconds: float) -> a.Observation:
        return await self._just(a.HoldKey, chord=chord, seconds=seconds)

    async def wait(self, seconds: float) -> a.Observation:
        return await self._just(a.Wait, seconds=seconds)
