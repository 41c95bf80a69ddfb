"""How desktops are run as containers: the settings ``CARREL_DOCKER_*``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

CARREL, DEFAULT, UNCONFINED = "carrel", "default", "unconfined"


class Options(BaseModel):
    """How desktops are run as containers: the settings ``CARREL_DOCKER_*``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Annotated[
        str, Field(description="unix:// and the path of the engine's socket", max_length=200)
    ] = "unix:///var/run/docker.sock"
    image: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^\S+$")] = (
        "carrel-desktop:ubuntu-full"
    )
    runtime: Annotated[
        str, Field(pattern=r"^[\w./-]*$", description="of the engine's, as runsc; empty: its own")
    ] = ""
    seccomp: Annotated[
        str,
        Field(
            pattern=r"^(carrel|default|unconfined|/.+)$",
            description="carrel's own profile, the engine's default, none, or a file's path",
        ),
    ] = CARREL
    shm_mib: Annotated[int, Field(ge=64, le=1 << 20, description="of /dev/shm")] = 512
    tmp_mib: Annotated[int, Field(ge=64, le=1 << 20, description="of /tmp")] = 1024
    start_seconds: Annotated[float, Field(ge=1, le=110)] = 60.0

    @field_validator("host")
    @classmethod
    def _is_here(cls, text: str) -> str:
        path = text.removeprefix("unix://")
        if path == text or not path.startswith("/"):
            raise ValueError(
                "the engine has to be this machine's own, as unix:///var/run/docker.sock: "
                "desktops are reached by sockets in its folders"
            )
        return text

    @property
    def socket(self) -> str:
        return self.host.removeprefix("unix://")
