"""The tool clipboard: what was copied in a desktop, read and set."""

from __future__ import annotations

from typing import Annotated

from mcp.types import ContentBlock, TextContent
from pydantic import Field

from agent_bridge import pictures
from agent_bridge.caller import Caller
from agent_bridge.inputs import OnDesktop
from workspace.models import Selection

MAX_CHARACTERS = 20_000


class Clipboard(OnDesktop):
    """The arguments of clipboard."""

    text: Annotated[str | None, Field(max_length=1 << 20, description="set it")] = None
    html: Annotated[
        str | None, Field(max_length=1 << 20, description="the same as HTML, to paste formatted")
    ] = None
    selection: Annotated[
        Selection, Field(description="primary: what is marked, pasted by the middle button")
    ] = "clipboard"


async def clipboard(caller: Caller, asked: Clipboard) -> list[ContentBlock]:
    desktop = caller.carrel.desktop(asked.desktop_id)
    if asked.text is not None or asked.html is not None:
        await desktop.set_clipboard(asked.text, html=asked.html, selection=asked.selection)
        return [TextContent(type="text", text="Set. Paste it with the key ctrl+v, for example.")]
    found = await desktop.clipboard_contents(selection=asked.selection)
    content: list[ContentBlock] = []
    for name, part in (("Text", found.text), ("HTML", found.html)):
        if part:
            content.append(TextContent(type="text", text=f"{name}:\n{_cut(part)}"))
    if found.image is not None and len(found.image) <= pictures.MAX_BYTES:
        content.append(pictures.content(found.image, "png"))
    elif found.image is not None:
        text = f"A picture of {len(found.image)} bytes, too large to show."
        content.append(TextContent(type="text", text=text))
    if not content:
        others = ", ".join(target[:100] for target in found.targets[:30])
        text = f"No text, HTML or picture, only: {others}." if others else "It is empty."
        content.append(TextContent(type="text", text=text))
    return content


def _cut(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}\n[cut: it has {len(text)} characters]"
