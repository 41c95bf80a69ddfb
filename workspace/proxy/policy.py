"""What a proxy is told: the rules, networks that an operator permits, limits, and secrets.

It is replaced as a whole while connections are open, never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from workspace.egress import Egress, EgressLimits, Rule, Secret, parse_rule
from workspace.proxy.addresses import Network


@dataclass(frozen=True)
class Policy:
    """The rules in force."""

    egress: Egress = "none"
    private: Sequence[Network] = ()
    limits: EgressLimits = field(default_factory=EgressLimits)
    secrets: Sequence[Secret] = ()
    _rules: Sequence[Rule] = field(init=False, repr=False, default=())
    _by_target: Mapping[tuple[str, int], Sequence[Secret]] = field(
        init=False, repr=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        rules = [] if isinstance(self.egress, str) else [parse_rule(rule) for rule in self.egress]
        by_target: dict[tuple[str, int], list[Secret]] = {}
        for secret in self.secrets:
            by_target.setdefault(secret.target, []).append(secret)
        object.__setattr__(self, "_rules", tuple(rules))
        object.__setattr__(self, "_by_target", by_target)

    def with_egress(self, egress: Egress) -> Policy:
        return replace(self, egress=egress)

    def with_secrets(self, secrets: Sequence[Secret]) -> Policy:
        return replace(self, secrets=tuple(secrets))

    @property
    def is_list(self) -> bool:
        """Whether single hosts are named, so that what is inside a connection matters."""
        return not isinstance(self.egress, str)

    def why_refused(self, host: str, port: int) -> str | None:
        """Why a host in its normal form may not be asked for; None if it may."""
        if self.egress == "internet":
            return None
        if self.egress == "none":
            return "this desktop has no way out (its egress is none)"
        if any(rule.permits(host, port) for rule in self._rules):
            return None
        return f"{host}:{port} is not among this desktop's egress rules"

    def secrets_for(self, host: str, port: int) -> Sequence[Secret]:
        return self._by_target.get((host, port), ())
