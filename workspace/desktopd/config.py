"""What desktopd is given when it starts: one JSON object, checked before anything is started.

The token is a secret: it is read from a file descriptor or a file, never from the environment or
the command line, and no program of the desktop is given it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from workspace.browsing import BrowserSettings
from workspace.ide import IdeSettings
from workspace.models import (
    Environment,
    Keyboard,
    Locale,
    Screen,
    SessionKind,
    Template,
    Theme,
    TimeZone,
    ToolProgram,
)

MAX_CONFIG_BYTES = 8 << 20


class Config(BaseModel):
    """The desktop that desktopd is to serve."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token: Annotated[str, Field(min_length=16, max_length=512, pattern=r"^[!-~]+$", repr=False)]
    session: SessionKind = "xfce"
    screen: Screen = Screen()
    theme: Theme = "light"
    locale: Locale = "C.UTF-8"
    timezone: TimeZone | None = None
    keyboard: Keyboard = "us"
    defaults: Annotated[
        Environment, Field(description="of the environment, where nothing else is said")
    ] = {}
    environment: Environment = {}
    startup: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=4096)]],
        Field(max_length=20, description="commands run in bash once windows are managed"),
    ] = []
    tools: Annotated[
        dict[str, ToolProgram], Field(max_length=16, description="started when they are asked for")
    ] = {}
    oom_score_adj: Annotated[
        int, Field(ge=0, le=1000, description="of user programs: the first to be killed")
    ] = 500
    disk_mib: Annotated[
        int | None, Field(ge=1, le=1 << 20, description="limit of the home folder for uploads")
    ] = None
    browser: BrowserSettings = BrowserSettings()
    ide: IdeSettings | None = None
    start_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0


def config_for(
    template: Template, *, token: str, defaults: Mapping[str, str], start_seconds: float
) -> Config:
    """The desktop of a template, as every backend has it served."""
    return Config(
        token=token,
        session=template.session,
        screen=template.screen,
        theme=template.theme,
        locale=template.locale,
        timezone=template.timezone,
        keyboard=template.keyboard,
        defaults=dict(defaults),
        environment=template.environment,
        startup=template.startup,
        tools=template.tools,
        disk_mib=template.disk_mib,
        browser=template.browser,
        ide=template.ide,
        start_seconds=start_seconds,
    )
