"""What is kept of a desktop beyond its life: frames, recordings, and files saved on purpose."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

ARTIFACT_ID = r"^[a-z0-9]{8,20}$"
ArtifactKind = Literal["frame", "recording", "file"]


class ArtifactRequest(BaseModel):
    """The body of ``POST .../artifacts``: a file of the desktop that is to be kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Annotated[
        str, Field(min_length=1, max_length=4096, description="relative ones start in /home/user")
    ]
    name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=255,
            pattern=r"^[^\x00-\x1f\x7f/]*$",
            description="what it is called; default: as the file is",
        ),
    ] = None


class Artifact(BaseModel):
    """Something that is kept; ``digest`` is the SHA-256 of its bytes, in hexadecimal."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    workspace_id: str
    kind: ArtifactKind
    name: str
    digest: str
    size: int  # bytes
    media_type: str  # by its name: what it truly is, nobody has looked
    created_at: datetime
    meta: dict[str, JsonValue] = {}


class ArtifactList(BaseModel):
    """One page of artifacts, oldest first; ``after`` is what to ask for next, None at the end."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    artifacts: list[Artifact]
    after: str | None = None
