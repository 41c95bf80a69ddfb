"""What a desktop takes of its node, besides what its template says. Pure.

Memory is what its template limits it to, and what it costs to isolate and to own it; processors are
what it is promised, not what it may use. A sandbox that shares the node's kernel is promised none:
the kernel gives each its share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from workspace.models import Template

# Measured: the actor, and the supervisor of a sandbox.
_OWNER_MIB = 60
# Kata's own, as its RuntimeClasses declare them (`overhead.podFixed`).
_KATA_MIB, _QEMU_MIB = 130, 320
_KATA_MILLICPUS = 250


class Footprint(NamedTuple):
    """What is counted of the node's memory, and thousandths of its processors."""

    memory_mib: int
    millicpus: int


def of(
    template: Template,
    settings: Mapping[str, Any],  # Any: each backend's settings, plain JSON
) -> Footprint:
    """Of one desktop of the template, by the backend that it names."""
    if template.backend == "fake":
        return Footprint(0, 0)  # it is a folder and a socket in its actor
    if template.backend == "kata" and "options" in settings:
        from workspace.backends.kube.options import Options

        options = Options.model_validate(settings["options"])
        is_qemu = "qemu" in options.runtime_class
        return Footprint(
            template.memory_mib + (_QEMU_MIB if is_qemu else _KATA_MIB),
            round(template.cpus * options.cpu_request * 1000) + _KATA_MILLICPUS,
        )
    return Footprint(template.memory_mib + _OWNER_MIB, 0)
