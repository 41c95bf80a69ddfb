"""What is on a desktop's screen by accessibility: elements with roles, names, texts and boxes."""

from __future__ import annotations

from workspace.actions import ImageFormat
from workspace.calls.wire import Wire, parse
from workspace.elements import ElementTree, Marks


class UiCalls:
    """The elements of a desktop; what they say was said by programs in it."""

    _wire: Wire

    async def elements(
        self,
        *,
        window: int | None = None,
        max_nodes: int = 3000,
        max_depth: int = 60,
        seconds: float = 1.0,
        everything: bool = False,
    ) -> ElementTree:
        """What can be seen, as a tree; ``print(tree.as_text())`` is what models read.

        ``window`` is the id of one of :meth:`windows`; ``everything`` brings also what is there
        for layout only. What the budgets cut off is said in ``truncated``.
        """
        params: dict[str, str | int | float] = {
            "max_nodes": max_nodes,
            "max_depth": max_depth,
            "seconds": seconds,
            "all": str(everything).lower(),
        }
        if window is not None:
            params["window"] = window
        body = await self._wire.call("GET", "/ui", params=params, seconds=seconds)
        return parse(ElementTree.model_validate_json, body)

    async def find_elements(
        self,
        *,
        role: str | None = None,
        name: str | None = None,
        text: str | None = None,
        window: int | None = None,
        limit: int = 20,
        seconds: float = 1.0,
    ) -> ElementTree:
        """The elements that can be seen of that role, with those words; none is no error.

        ``role`` is the whole role, ``name`` a part of the name, ``text`` a part of the name or of
        what it holds, in whatever case.
        """
        given = {"role": role, "name": name, "text": text, "window": window}
        params = {key: value for key, value in given.items() if value is not None}
        body = await self._wire.call(
            "GET",
            "/ui/find",
            params=params | {"limit": limit, "seconds": seconds},
            seconds=seconds,
        )
        return parse(ElementTree.model_validate_json, body)

    async def marks(
        self,
        *,
        format: ImageFormat = "jpeg",
        quality: int = 80,
        scale: float = 1.0,
        window: int | None = None,
        limit: int = 200,
    ) -> Marks:
        """A picture with a numbered box over what can be clicked: number 12 is the element e12."""
        params: dict[str, str | int | float] = {
            "format": format,
            "quality": quality,
            "scale": scale,
            "limit": limit,
        }
        if window is not None:
            params["window"] = window
        return parse(
            Marks.model_validate_json, await self._wire.call("GET", "/ui/marks", params=params)
        )
