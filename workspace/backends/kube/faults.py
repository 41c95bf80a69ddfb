"""What the Kubernetes API refuses, in words that a person can act on. Pure."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from workspace.errors import (
    BackendUnavailable,
    CarrelError,
    NoCapacity,
    StartFailed,
    Unavailable,
)

# In the API's own words on why a namespace that was just made, or a class, is not there yet.
_SOON = re.compile(r"serviceaccount \"?default\"? not found|error looking up service account")
_RIGHT = re.compile(
    r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<what>[^"]*)"'
    r'(?: in API group "(?P<group>[^"]*)")?(?: in the namespace "(?P<where>[^"]*)")?'
)
_CLASS = re.compile(r"RuntimeClass \"?(?P<name>[^\"\s]*)\"? not found", re.IGNORECASE)
_QUOTA = re.compile(r"exceeded quota|maximum (?:cpu|memory) usage", re.IGNORECASE)


class Answer(NamedTuple):
    """What the API said."""

    status: int
    body: dict[str, Any]  # Any: JSON values
    retry_seconds: float = 0.0

    @property
    def message(self) -> str:
        return str(self.body.get("message") or f"status {self.status}")[:1000]


class Away(Exception):
    """The API cannot be reached; or, with a ``status``, gives no watch."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


def is_soon(answer: Answer) -> bool:
    """Whether the same request will do in a moment: a namespace that is new gets complete, and two
    who change the same quota at once are a conflict.
    """
    if answer.status == 409:
        return answer.body.get("reason") == "Conflict"
    return answer.status == 403 and bool(_SOON.search(answer.message))


def is_taken(answer: Answer) -> bool:
    """Whether there is an object of that name."""
    return answer.status == 409 and answer.body.get("reason") == "AlreadyExists"


def away(error: Away) -> Unavailable:
    return BackendUnavailable(
        f"The Kubernetes API does not answer: {error}.",
        hint="`carrel doctor --cluster` says what is reachable and what is not.",
    )


def refused(what: str, answer: Answer) -> CarrelError:
    """Why ``what`` (as "The pod of desktop x could not be made") was refused."""
    said = answer.message
    if answer.status == 401:
        return BackendUnavailable(
            f"{what}: the Kubernetes API does not accept our credentials.",
            hint="Give the pod its service account, or name a kubeconfig that is valid.",
        )
    if answer.status in (403, 422) and (missing := _CLASS.search(said)):
        return no_class(missing["name"], ())
    if answer.status == 403 and _QUOTA.search(said):
        return NoCapacity(f"{what}: {said}", hint="Raise the quota of the desktops' namespace.")
    if answer.status == 403 and (right := _RIGHT.search(said)):
        group = f".{right['group']}" if right["group"] else ""
        where = f"in namespace {right['where']}" if right["where"] else "of the cluster"
        return BackendUnavailable(
            f"{what}: {right['user']} lacks the right to {right['verb']} "
            f"{right['what']}{group} {where}.",
            hint="Apply the roles in deploy/; `carrel doctor --cluster` lists what is missing.",
        )
    if answer.status == 403:
        return BackendUnavailable(
            f"{what}: {said}", hint="An admission rule of the cluster forbids it."
        )
    if answer.status == 404 and "namespaces" in said:
        return BackendUnavailable(f"{what}: {said}.", hint="Apply the manifests in deploy/.")
    if answer.status in (409, 429, 500, 502, 503, 504):
        return BackendUnavailable(f"{what}: the Kubernetes API says {said}.", hint="Try again.")
    return StartFailed(f"{what}: {said} (status {answer.status}).", hint="")


def no_class(name: str, known: tuple[str, ...]) -> BackendUnavailable:
    """No RuntimeClass of that name."""
    kata = [each for each in known if each.startswith("kata")]
    if kata:
        hint = f"Set CARREL_KATA_RUNTIME_CLASS to one of: {', '.join(kata)}."
    elif known:
        hint = f"Install Kata by its Helm chart kata-deploy. There are: {', '.join(known)}."
    else:
        hint = "Install Kata by its Helm chart kata-deploy: its classes are named kata-<shim>."
    return BackendUnavailable(f"The cluster has no RuntimeClass {name!r}.", hint=hint)
