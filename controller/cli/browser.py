"""Commands for the pages of a desktop's browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from controller.cli import output
from controller.cli.connect import controller, run
from controller.cli.desktops import Id
from controller.cli.output import Json

if TYPE_CHECKING:
    from workspace.browsing import Acted, BrowserAction, PageState, TabList

Tab = Annotated[str | None, typer.Option(help="t1, ...; default: the one that is shown.")]
Ref = Annotated[str, typer.Argument(help="r12, as read.")]


def add_to(app: typer.Typer) -> None:
    pages = typer.Typer(help="Read and act on web pages by ref.", no_args_is_help=True)
    for command in (open_page, read, click, fill, tabs, pdf):
        pages.command("open" if command is open_page else None)(command)
    app.add_typer(pages, name="browser")


def open_page(
    workspace_id: Id,
    url: str,
    new_tab: Annotated[bool, typer.Option(help="In a tab of its own.")] = False,
    json: Json = False,
) -> None:
    """Open an address, starting the browser if there is none."""

    async def main() -> None:
        async with controller() as carrel:
            page = await carrel.desktop(workspace_id).navigate(url, new_tab=new_tab)
        output.result(page, _told(page))

    run(main)


def read(
    workspace_id: Id,
    format: Annotated[str, typer.Option(help="tree, text or markdown.")] = "tree",
    find: Annotated[str | None, typer.Option(help="Only elements with this in them.")] = None,
    tab: Tab = None,
    after: Annotated[int, typer.Option(help="Read on from there.")] = 0,
    json: Json = False,
) -> None:
    """Print what a page says: its elements with their refs, or its text."""

    async def main() -> None:
        # Any other is refused by the desktop, which names those there are.
        kind = cast(Literal["tree", "text", "markdown"], format)
        async with controller() as carrel:
            page = await carrel.desktop(workspace_id).read_page(
                tab=tab, format=kind, find=find, after=after
            )
        if page.dialog is not None:
            output.note(f"A dialog is open: {page.dialog.message}")
        output.result(page, page.text)
        if page.next is not None:
            output.note(f"There is more: --after {page.next}")

    run(main)


def click(workspace_id: Id, ref: Ref, tab: Tab = None, json: Json = False) -> None:
    """Click an element."""
    from workspace.browsing import ClickRef
    from workspace.transport import asked

    _act(workspace_id, asked(ClickRef, ref=ref), tab)


def fill(
    workspace_id: Id,
    ref: Ref,
    text: str,
    submit: Annotated[bool, typer.Option(help="Press Enter then.")] = False,
    tab: Tab = None,
    json: Json = False,
) -> None:
    """Set the text of an entry."""
    from workspace.browsing import FillRef
    from workspace.transport import asked

    _act(workspace_id, asked(FillRef, ref=ref, text=text, submit=submit), tab)


def tabs(workspace_id: Id, json: Json = False) -> None:
    """List the pages that are open."""

    async def main() -> None:
        async with controller() as carrel:
            told: TabList = await carrel.desktop(workspace_id).tabs()
        if output.wants_json():
            output.result(told)
            return
        rows = [(each.id, each.title, each.url, "shown" * each.is_shown) for each in told.tabs]
        output.table(("ID", "TITLE", "ADDRESS", ""), rows)

    run(main)


def pdf(
    workspace_id: Id,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Default: ID.pdf here.")] = None,
    tab: Tab = None,
    json: Json = False,
) -> None:
    """Print a page to a PDF; prints the file it is in."""
    file = out or Path(f"{workspace_id}.pdf")

    async def main() -> None:
        async with controller() as carrel:
            data = await carrel.desktop(workspace_id).page_pdf(tab=tab)
        file.write_bytes(data)
        output.result({"path": str(file), "bytes": len(data)}, str(file))

    run(main)


def _act(workspace_id: str, action: BrowserAction, tab: str | None) -> None:
    async def main() -> None:
        async with controller() as carrel:
            acted: Acted = await carrel.desktop(workspace_id).act_on_page(action, tab=tab)
        seen = acted.observation.model_copy(update={"screenshot": None})
        told = acted.model_copy(update={"observation": seen})
        output.result(told, f"{acted.observation.summary} {_told(acted.page)}")

    run(main)


def _told(page: PageState) -> str:
    dialog = f" A dialog is open: {page.dialog.message}" if page.dialog is not None else ""
    return " ".join([f"{page.tab} {page.title!r} {page.url}{dialog}", *page.notes])
