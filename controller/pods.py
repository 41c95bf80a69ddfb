"""The settings ``CARREL_KATA_*``, by which desktops are pods of a Kubernetes cluster."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from controller.settings import Settings
from workspace import settings as environment
from workspace.backends.kube.checks import check_class
from workspace.backends.kube.options import Options
from workspace.errors import InvalidRequest


def options() -> Options | None:
    """None without an image: there are no pods.

    Raises:
        InvalidRequest: one of them is not usable.
    """
    given = environment.kata()
    if not given:
        return None
    try:
        return Options.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = "CARREL_KATA_" + str(first["loc"][0]).upper()
        told = f"{name} is not usable: {first['msg']}."
        raise InvalidRequest(told, hint="Correct it.") from error


def settings_of(settings: Settings) -> dict[str, Any] | None:  # Any: JSON values
    """What the backend of pods is made with, on every node. Looks at the cluster once; blocks.

    Raises:
        InvalidRequest: one of the settings is not usable, or there is none where it is needed.
        BackendUnavailable: the cluster has no such RuntimeClass.
    """
    found = options()
    if found is None and settings.backend == "kata":
        raise InvalidRequest(
            "CARREL_BACKEND is kata, and there is no CARREL_KATA_IMAGE.",
            hint="Name the image that desktops run.",
        )
    if found is None:
        return None
    check_class(found)
    return {
        "run_dir": str(settings.sockets),
        "options": found.model_dump(mode="json"),
        "cluster": settings.cluster_name,
        "egress_private": [each for each in settings.egress_private.split(",") if each.strip()],
    }
