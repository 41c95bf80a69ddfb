"""The nouns of many desktops: what a pool is told and tells. One desktop's are in models.py."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from workspace.models import Node, Pool


class PoolChange(BaseModel):
    """The body of ``PATCH /v1/pools/{template}``: what is given changes, the rest stays.

    ``max`` and ``idle_seconds`` given as null end that limit.
    """

    model_config = ConfigDict(extra="forbid")

    warm: Annotated[int | None, Field(ge=0, le=10_000)] = None
    floor: Annotated[int | None, Field(ge=0, le=10_000)] = None
    max: Annotated[int | None, Field(ge=1, le=100_000)] = None
    surge: Annotated[int | None, Field(ge=1, le=1000)] = None
    idle_seconds: Annotated[float | None, Field(ge=1, le=30 * 86400)] = None
    max_age_seconds: Annotated[float | None, Field(ge=10, le=30 * 86400)] = None


class PoolStatus(BaseModel):
    """One template's pool, as it is now."""

    template: str
    pool: Pool
    state: Literal["filled", "filling", "idle", "full", "backing_off", "quarantined"]
    reason: str = ""  # why it is quarantined, backing off, or has no room
    target: int = 0  # warm ones wanted now
    warm: int = 0  # waiting for a claim
    warming: int = 0  # being started
    live: int = 0  # claimed
    waiting: int = 0  # claims in the queue
    hits: int = 0  # claims that a warm one answered, since the controller started
    misses: int = 0


class NodeChange(BaseModel):
    """The body of ``PATCH /v1/nodes/{id}``."""

    model_config = ConfigDict(extra="forbid")

    draining: bool  # it gets no new desktops


class Controller(BaseModel):
    """One of the controllers that share a database."""

    id: str
    leads: bool = False  # it looks after the pools, and after strays


class Status(BaseModel):
    """All of it at a glance."""

    controllers: list[Controller]
    nodes: list[Node]
    pools: list[PoolStatus]
    workspaces: dict[str, int]  # live ones, by state
    waiting: int = 0  # claims in the queue
    strays: int = (
        0  # found by the last comparison of the controller that was asked, and still there
    )
    troubles: list[str] = []  # what does not answer
