"""Commands that act on a desktop's screen, and say what could be seen of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import output
from controller.cli.connect import controller, run
from controller.cli.desktops import Id
from controller.cli.output import Json

if TYPE_CHECKING:
    from workspace.actions import Action

SUFFIXES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png", ".webp": "webp"}
EFFECTS = {
    "changed": "the screen changed",
    "no_visible_change": "nothing on the screen changed",
    "not_observed": "done",
}

Modifier = Annotated[
    list[str] | None, typer.Option("--modifier", help="Held meanwhile: ctrl, shift, alt, super.")
]
Button = Annotated[str, typer.Option(help="left, middle, right, back or forward.")]
Settle = Annotated[
    int, typer.Option("--settle", help="Wait at most so many ms for the screen to come to rest.")
]


def add_to(app: typer.Typer) -> None:
    app.command()(shot)
    app.command()(click)
    app.command("type")(type_text)
    app.command()(key)
    app.command()(scroll)
    app.command()(drag)


def shot(
    workspace_id: Id,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Default: ID.jpg here; - is stdout.")
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="jpeg, png or webp; default: by the file's name.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Size of the picture by that of the screen.")] = 1.0,
    quality: Annotated[int, typer.Option(help="1-100, of jpeg and webp.")] = 80,
    region: Annotated[str | None, typer.Option(metavar="X,Y,WIDTH,HEIGHT")] = None,
    json: Json = False,
) -> None:
    """Take a screenshot; prints the file it is in."""
    kind = format or (SUFFIXES.get(out.suffix.lower(), "jpeg") if out else "jpeg")
    file = out or Path(f"{workspace_id}.{'jpg' if kind == 'jpeg' else kind}")

    async def main() -> None:
        from workspace.actions import ACTION, Region, Screenshot

        action = ACTION.validate_python(
            {"type": "screenshot", "format": kind, "scale": scale, "quality": quality}
        )
        assert isinstance(action, Screenshot)
        if region is not None:
            x, y, width, height = _numbers(region, 4, "--region")
            area = Region(x=x, y=y, width=width, height=height)
            action = action.model_copy(update={"region": area})
        async with controller() as carrel:
            seen = await carrel.desktop(workspace_id).act(action, settle_ms=0, observe="none")
        picture = seen.screenshot
        assert picture is not None, "a screenshot brings a picture"
        if str(file) == "-":
            sys.stdout.buffer.write(picture.data)
            sys.stdout.buffer.flush()
            return
        _write(file, picture.data)
        told = {"path": str(file), **picture.model_dump(exclude={"data"})}
        output.result(told | {"bytes": len(picture.data)}, str(file))

    run(main)


def click(
    workspace_id: Id,
    x: int,
    y: int,
    button: Button = "left",
    count: Annotated[int, typer.Option(help="2 is a double click.")] = 1,
    modifier: Modifier = None,
    settle: Settle = 1000,
    json: Json = False,
) -> None:
    """Click at a point, in pixels from the top left."""
    _act(
        workspace_id,
        {
            "type": "click",
            "x": x,
            "y": y,
            "button": button,
            "count": count,
            "modifiers": modifier or [],
        },
        settle,
    )


def type_text(
    workspace_id: Id,
    text: Annotated[str, typer.Argument(help="Any text; - reads it from stdin.")],
    settle: Settle = 1000,
    json: Json = False,
) -> None:
    """Type text into whatever has the focus."""
    typed = sys.stdin.read(100_001) if text == "-" else text
    _act(workspace_id, {"type": "type", "text": typed}, settle)


def key(
    workspace_id: Id,
    chord: Annotated[str, typer.Argument(help="For example ctrl+s, Return or alt+F4.")],
    repeat: Annotated[int, typer.Option(help="How often.")] = 1,
    settle: Settle = 1000,
    json: Json = False,
) -> None:
    """Press keys together."""
    _act(workspace_id, {"type": "key", "chord": chord, "repeat": repeat}, settle)


def scroll(
    workspace_id: Id,
    dy: Annotated[int, typer.Argument(help="Notches; > 0 scrolls down.")],
    dx: Annotated[int, typer.Option(help="Notches; > 0 scrolls right.")] = 0,
    at: Annotated[str | None, typer.Option(metavar="X,Y", help="Default: at the pointer.")] = None,
    modifier: Modifier = None,
    settle: Settle = 1000,
    json: Json = False,
) -> None:
    """Turn the mouse wheel. Scroll up with `-- -3`."""
    point = dict(zip("xy", _numbers(at, 2, "--at"), strict=True)) if at else {}
    action = {"type": "scroll", "dx": dx, "dy": dy, "modifiers": modifier or [], **point}
    _act(workspace_id, action, settle)


def drag(
    workspace_id: Id,
    path: Annotated[list[str], typer.Argument(metavar="X,Y X,Y...")],
    button: Button = "left",
    modifier: Modifier = None,
    settle: Settle = 1000,
    json: Json = False,
) -> None:
    """Press at the first point, move along the others, release at the last."""
    points = [_numbers(point, 2, "path") for point in path]
    action = {"type": "drag", "path": points, "button": button, "modifiers": modifier or []}
    _act(workspace_id, action, settle)


def _act(workspace_id: str, given: Mapping[str, object], settle_ms: int) -> None:
    async def main() -> None:
        from workspace.actions import ACTION

        action: Action = ACTION.validate_python(given)
        async with controller() as carrel:
            desktop = carrel.desktop(workspace_id)
            seen = await desktop.act(action, settle_ms=settle_ms, observe="frame")
        output.result(
            seen.model_dump(mode="json", exclude={"screenshot"}),
            f"{EFFECTS[seen.effect]}; the pointer is at {seen.cursor[0]},{seen.cursor[1]}",
        )

    run(main)


def _numbers(text: str, count: int, what: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        raise typer.BadParameter(
            f"{text!r} is not {count} whole numbers with commas between", param_hint=what
        )
    return numbers


def _write(file: Path, data: bytes) -> None:
    from workspace.errors import InvalidRequest

    try:
        file.write_bytes(data)
    except OSError as error:
        raise InvalidRequest(
            f"{file} cannot be written: {error.strerror}.", hint="Name another with -o."
        ) from error
