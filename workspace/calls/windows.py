"""Windows, applications and the clipboard."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence

from pydantic import TypeAdapter

from workspace.calls.wire import Wire, parse
from workspace.models import (
    ApplicationList,
    Clipboard,
    ClipboardContents,
    ClipboardPart,
    Launch,
    Launched,
    Selection,
    Window,
    WindowChange,
    WindowMove,
    WindowResize,
)
from workspace.transport import asked

_WINDOWS = TypeAdapter(list[Window])


class WindowCalls:
    """A desktop's windows, and what is started in it."""

    _wire: Wire

    async def clipboard(self, *, selection: Selection = "clipboard") -> str:
        """The text that was copied, or (``selection="primary"``) that is marked."""
        return (await self.clipboard_contents(selection=selection, only="text")).text

    async def clipboard_contents(
        self, *, selection: Selection = "clipboard", only: ClipboardPart | None = None
    ) -> ClipboardContents:
        """What was copied: text, HTML, a picture (a PNG), and the forms that there are.

        ``only`` asks the program that owns it for no other form.
        """
        params = {"selection": selection} | ({} if only is None else {"only": only})
        body = await self._wire.call("GET", "/clipboard", params=params)
        return parse(ClipboardContents.model_validate_json, body)

    async def set_clipboard(
        self,
        text: str | None = None,
        *,
        html: str | None = None,
        image: bytes | None = None,
        selection: Selection = "clipboard",
    ) -> None:
        """Offer what programs then paste: the same as text, as HTML, as a picture (a PNG)."""
        encoded = None if image is None else b64encode(image)
        wanted = asked(Clipboard, text=text, html=html, image=encoded)
        await self._wire.call(
            "PUT",
            "/clipboard",
            params={"selection": selection},
            content=wanted.model_dump_json(exclude_none=True),
            headers={"Content-Type": "application/json"},
        )

    async def windows(self) -> list[Window]:
        return parse(_WINDOWS.validate_json, await self._wire.call("GET", "/windows"))

    async def wait_for_window(
        self, *, title: str | None = None, window_class: str | None = None, seconds: float = 15
    ) -> Window:
        """The window with those texts in its title and class, once it is on the screen.

        Raises:
            TimedOut: none came; the hint has the titles that there are.
        """
        params: dict[str, str | float] = {"seconds": seconds}
        if title is not None:
            params["title"] = title
        if window_class is not None:
            params["window_class"] = window_class
        body = await self._wire.call("GET", "/windows/wait", params=params, seconds=seconds)
        return parse(Window.model_validate_json, body)

    async def move_window(self, window: int, x: int, y: int) -> Window:
        """Move a window's box; it comes back as the window manager then left it."""
        return await self._arrange(window, "move", asked(WindowMove, x=x, y=y))

    async def resize_window(self, window: int, width: int, height: int) -> Window:
        """Resize a window, without its frame; it comes back as it then is."""
        return await self._arrange(
            window, "resize", asked(WindowResize, width=width, height=height)
        )

    async def set_window_state(self, window: int, state: str) -> Window:
        """Make a window ``normal``, ``minimised``, ``maximised`` or ``fullscreen``."""
        change = asked(WindowChange.model_validate, {"state": state})
        return await self._arrange(window, "state", change)

    async def _arrange(
        self, window: int, how: str, wanted: WindowMove | WindowResize | WindowChange
    ) -> Window:
        body = await self._wire.call("POST", f"/windows/{window}/{how}", json=wanted.model_dump())
        return parse(Window.model_validate_json, body)

    async def focus_window(self, window: int) -> None:
        await self._wire.call("POST", f"/windows/{window}/focus")

    async def close_window(self, window: int) -> None:
        await self._wire.call("POST", f"/windows/{window}/close")

    async def applications(self, *, limit: int = 500, after: str | None = None) -> ApplicationList:
        """The applications that are installed, by the names that :meth:`launch` takes."""
        params: dict[str, str | int] = {"limit": limit}
        if after is not None:
            params["after"] = after
        body = await self._wire.call("GET", "/applications", params=params)
        return parse(ApplicationList.model_validate_json, body)

    async def launch(
        self, name: str, arguments: Sequence[str] = (), *, wait_seconds: float = 15
    ) -> Launched:
        """Start an application by name ("mousepad") and wait for its window.

        Raises:
            ApplicationNotFound: there is none of that name; the hint has the nearest.
        """
        request = asked(Launch, name=name, arguments=list(arguments), wait_seconds=wait_seconds)
        body = await self._wire.call(
            "POST", "/applications", json=request.model_dump(), seconds=wait_seconds
        )
        return parse(Launched.model_validate_json, body)
