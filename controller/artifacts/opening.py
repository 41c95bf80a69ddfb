"""What the settings say of artifacts: where they are kept, how many, and how long."""

from __future__ import annotations

from datetime import timedelta

from controller.artifacts import Artifacts
from controller.artifacts.blobs import Blobs
from controller.artifacts.folder import Folder
from controller.artifacts.quota import Quota
from controller.artifacts.retention import Retention
from controller.events import Events
from controller.settings import Settings
from controller.store import Store
from workspace.artifacts import ArtifactKind
from workspace.errors import Conflict

NOWHERE = "none"


def by_settings(settings: Settings) -> Blobs | None:
    """Nothing of it is used before it is run; None: artifacts are not kept.

    Raises:
        Conflict: a folder, for a controller that is one of several.
        InvalidRequest: the setting names no bucket.
        BackendUnavailable: the library for S3 is not installed.
    """
    if settings.artifacts == NOWHERE:
        return None
    if settings.artifacts.startswith("s3:"):
        from controller.artifacts.s3 import S3

        return S3(
            settings.artifacts,
            endpoint=settings.artifact_endpoint,
            region=settings.artifact_region,
        )
    if settings.is_one_of_several:
        raise Conflict(
            "This controller is one of several, and a folder of its machine is not theirs.",
            hint="Set CARREL_ARTIFACTS to s3://bucket/prefix for all of them, or to 'none' to "
            "keep no artifacts.",
        )
    return Folder(settings.artifact_folder)


def quota(settings: Settings) -> Quota:
    return Quota(
        of_workspace=settings.artifact_workspace_mib << 20, in_all=settings.artifact_mib << 20
    )


def retention(artifacts: Artifacts, store: Store, events: Events, settings: Settings) -> Retention:
    frames = settings.artifact_frame_days
    days: dict[ArtifactKind, float] = {
        "file": settings.artifact_days,
        "recording": settings.artifact_days,
        "frame": settings.artifact_days if frames is None else frames,
    }
    ages = {kind: timedelta(days=each) for kind, each in days.items() if each}
    return Retention(
        artifacts,
        store.leadership,
        events,
        ages=ages,
        own=lambda: store.tenants.days("artifact_days"),
    )
