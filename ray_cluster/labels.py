"""Which nodes a template may be on, by their labels. Pure; what Ray's label selectors mean.

Ray is told the same selector. It is also decided here, because Ray lets what no node can ever take
wait for ever, and says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

Labels = Mapping[str, str]


def fits(wanted: Labels, labels: Labels) -> bool:
    """Whether a node's labels are all as they are ``wanted``.

    A wish is ``a``, ``in(a,b)``, or one of these with a ``!`` before it, which a node without that
    label grants too.
    """
    return all(_grants(wish, labels.get(name)) for name, wish in wanted.items())


def told(labels: Labels) -> str:
    """As people read and write them."""
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _grants(wish: str, value: str | None) -> bool:
    if wish.startswith("!"):
        return not _grants(wish[1:], value)
    if wish.startswith("in(") and wish.endswith(")"):
        return value in wish[3:-1].split(",")
    return value == wish
