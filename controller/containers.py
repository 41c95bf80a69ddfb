"""The settings ``CARREL_DOCKER_*``, by which desktops are containers of this machine."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from controller.settings import Settings
from workspace import settings as environment
from workspace.backends.containers.options import Options
from workspace.errors import InvalidRequest

FOLDER = "docker"  # below the folders of sockets and of homes: each backend lists its own


def options(settings: Settings) -> Options | None:
    """None where nothing asks for containers.

    Raises:
        InvalidRequest: one of them is not usable.
    """
    given = environment.docker()
    if settings.backend != "docker" and "image" not in given:
        return None
    try:
        return Options.model_validate({"host": environment.docker_host()} | given)
    except ValidationError as error:
        first = error.errors()[0]
        name = "CARREL_DOCKER_" + str(first["loc"][0]).upper()
        told = f"{name} is not usable: {first['msg']}."
        raise InvalidRequest(told, hint="Correct it.") from error


def settings_of(settings: Settings) -> dict[str, Any] | None:  # Any: JSON values
    """What the backend of containers is made with.

    Raises:
        InvalidRequest: one of the settings is not usable.
    """
    found = options(settings)
    if found is None:
        return None
    return {
        "run_dir": str(settings.sockets / FOLDER),
        "disk_dir": str(settings.disks / FOLDER),
        "volume_dir": str(settings.volumes),
        "tool_dir": str(settings.tools),
        "options": found.model_dump(mode="json"),
        "cluster": settings.cluster_name,
        "egress_private": [each for each in settings.egress_private.split(",") if each.strip()],
    }
