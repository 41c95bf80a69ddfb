"""What a pod's status and Events mean: does it run, will it never, why did it end. Pure.

A pod whose node has no handler for its RuntimeClass stays Pending for ever, and only an Event
tells; so Events are read while a start is waited for. What may yet come right (a pull that is tried
again, a node that is full for a moment) is given some seconds; what will not, none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from workspace.backends.manifests import CONTAINER
from workspace.errors import BackendUnavailable, CarrelError, NoCapacity, StartFailed

Spec = Mapping[str, Any]  # Any: JSON values

UNSCHEDULABLE_SECONDS = 8.0  # another desktop may be about to make room
_NO_IMAGE = {
    "ErrImagePull": "it cannot be pulled",
    "ImagePullBackOff": "it cannot be pulled",
    "ErrImageNeverPull": "it is not on the node, and may not be pulled",
    "InvalidImageName": "that is no image's name",
    "ImageInspectError": "the node cannot read it",
    "RegistryUnavailable": "its registry does not answer",
}
_AT_ONCE = {"ErrImageNeverPull", "InvalidImageName", "ImagePullBackOff"}
_PULL_SECONDS = 20.0  # that one failed pull may be followed by one that does not fail
_NO_CONTAINER = {
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "StartError",
    "ContainerCannotRun",
}
_IMAGE_HINT = "Check CARREL_KATA_IMAGE, and CARREL_KATA_PULL_SECRET if its registry asks who pulls."
_MAX_WORDS = 600


def address(pod: Spec) -> str | None:
    """Where a pod answers, once its desktop's container runs."""
    status = pod.get("status") or {}
    for each in status.get("containerStatuses") or ():
        if each.get("name") == CONTAINER and "running" in (each.get("state") or {}):
            return str(status.get("podIP") or "") or None
    return None


def failure(pod: Spec, *, image: str, waited: float) -> CarrelError | None:
    """Why a pod that is starting will not run; None if it may. ``waited``: seconds since it was
    made.
    """
    if (why := ended(pod)) is not None:
        return StartFailed(f"The desktop did not start. {why}", hint=_hint(why))
    for state in _waiting(pod):
        reason, words = str(state.get("reason") or ""), _words(state.get("message"))
        if reason in _NO_IMAGE and (reason in _AT_ONCE or waited >= _PULL_SECONDS):
            return StartFailed(
                f"The desktop's image {image} cannot be used: {_NO_IMAGE[reason]}. {words}".strip(),
                hint=_IMAGE_HINT,
            )
        if reason in _NO_CONTAINER:
            told = f"The desktop's container cannot be made ({reason}). {words}"
            return StartFailed(told, hint=_hint(words))
    if waited >= UNSCHEDULABLE_SECONDS and (words := unschedulable(pod)):
        return NoCapacity(
            f"The pod has no place: {words}",
            hint="Release some desktops, or add nodes; fewer MiB or processors may fit too.",
        )
    return None


def _hint(words: str) -> str | None:
    """What to do about a container that a runtime cannot make or start."""
    if "seccomp" in words:
        return (
            "The profile that CARREL_KATA_SECCOMP names must lie in the kubelet's folder of every "
            "node, /var/lib/kubelet/seccomp: deploy/seccomp has ours."
        )
    if "no such file or directory" in words or "executable file not found" in words:
        return "CARREL_KATA_IMAGE must be a desktop's image, as `make image` builds it."
    return None


def unschedulable(pod: Spec) -> str:
    """The scheduler's words on why no node fits; empty if one does."""
    for each in (pod.get("status") or {}).get("conditions") or ():
        is_it = each.get("type") == "PodScheduled" and each.get("status") == "False"
        if is_it and each.get("reason") == "Unschedulable":
            return _words(each.get("message")) or "no node fits it."
    return ""


def told(events: Iterable[Spec], *, runtime_class: str) -> CarrelError | None:
    """What Events tell that a pod's status does not; None if a start may yet succeed."""
    for event in events:
        reason, words = str(event.get("reason") or ""), _words(event.get("message"))
        if reason == "FailedCreatePodSandBox" and _is_without_handler(words):
            return BackendUnavailable(
                f"The node has no handler for the RuntimeClass {runtime_class!r}: {words}",
                hint="Install Kata on the node by its Helm chart kata-deploy, and look at the "
                "containerd that it restarts; or choose another class.",
            )
    return None


def _is_without_handler(words: str) -> bool:
    text = words.lower()
    is_unknown = "no runtime for" in text or "unknown runtime handler" in text
    return is_unknown or ("runtime handler" in text and "not" in text)


def last_words(events: Sequence[Spec]) -> str:
    """What the cluster last complained of, for a start that took too long."""
    warnings = [each for each in events if each.get("type") == "Warning"]
    warnings.sort(key=_when)
    if not warnings:
        return ""
    last = warnings[-1]
    return f"{last.get('reason')}: {_words(last.get('message'))}"


def phase(pod: Spec) -> str:
    """How far a pod has come, in a few words."""
    status = pod.get("status") or {}
    parts = [str(status.get("phase") or "Pending")]
    parts += [str(state["reason"]) for state in _waiting(pod) if state.get("reason")]
    return ", ".join(dict.fromkeys(parts))


def is_over(pod: Spec) -> bool:
    """Whether nothing of it runs any more; one that is being deleted may yet."""
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")


def ended(pod: Spec) -> str | None:
    """Why a pod has ended, as a sentence; None while it has not."""
    status = pod.get("status") or {}
    if is_over(pod):
        return _why(status)
    for each in _containers(status):
        state = each.get("state") or {}
        if each.get("name") == CONTAINER and "terminated" in state:
            return _terminated(state["terminated"] or {})
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        for each in status.get("conditions") or ():
            if each.get("type") == "DisruptionTarget" and each.get("status") == "True":
                return f"The cluster takes its pod away: {_words(each.get('message'))}"
        return "Its pod is being deleted."
    return None


def _why(status: Spec) -> str:
    reason, words = str(status.get("reason") or ""), _words(status.get("message"))
    if reason == "Evicted":
        return f"The node has thrown its pod out to save itself: {words}"
    if reason == "DeadlineExceeded":
        return "Its pod has reached its activeDeadlineSeconds, the last net against leaks."
    if reason in ("NodeLost", "NodeShutdown", "Terminated"):
        return f"Its node went away ({reason}). {words}".strip()
    for each in _containers(status):
        done = (each.get("state") or {}).get("terminated")
        if done and (done.get("reason") != "Completed" or each.get("name") == CONTAINER):
            return _terminated(done)
    return f"Its pod ended ({reason or status.get('phase')}). {words}".strip()


def _terminated(done: Spec) -> str:
    reason, code = str(done.get("reason") or ""), done.get("exitCode")
    if reason == "OOMKilled":
        return "It was killed because its memory was full (OOMKilled)."
    words = _words(done.get("message"))
    tail = f" {words}" if words else ""
    return f"Its container ended with exit code {code}{f' ({reason})' if reason else ''}.{tail}"


def _containers(status: Spec) -> Iterator[Spec]:
    yield from status.get("containerStatuses") or ()
    yield from status.get("initContainerStatuses") or ()


def _waiting(pod: Spec) -> Iterator[Spec]:
    for each in _containers(pod.get("status") or {}):
        state = (each.get("state") or {}).get("waiting")
        if state:
            yield state


def _when(event: Spec) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def _words(text: object) -> str:
    return " ".join(str(text or "").split())[:_MAX_WORDS]
