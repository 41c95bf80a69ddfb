"""Who may let a desktop out, and how far: what its template permits, or what an operator says.

A template's ``egress`` is what its desktops have unless a claim says otherwise; ``egress_max`` is
what claims, and those who use a desktop, may ask for at most. An operator goes past it. Narrower
than it is now anybody who uses the desktop may make it.
"""

from __future__ import annotations

from controller.access import RANK, Caller
from controller.templates import Templates
from workspace.egress import Egress, EgressChange, changed, covers, permits
from workspace.errors import Forbidden, InvalidRequest, TemplateNotFound
from workspace.models import Template, Workspace, WorkspaceRequest


def check(request: WorkspaceRequest, template: Template, caller: Caller) -> None:
    """
    Raises:
        Forbidden: the claim asks for more than it may.
        InvalidRequest: one of its secrets is for a host that it does not reach.
    """
    egress = template.egress if request.egress is None else request.egress
    if not (is_operator(caller) or covers(template.most_egress, egress)):
        raise _too_much(template)
    targets: set[tuple[str, int, str]] = set()
    for secret in request.secrets:
        if not permits(egress, *secret.target):
            raise InvalidRequest(
                f"The secret {secret.name!r} is for {secret.host}, which the desktop cannot reach.",
                hint="Name that host in egress too.",
            )
        target = (*secret.target, secret.header.lower())
        if target in targets:
            raise InvalidRequest(
                f"Two secrets are for the header {secret.header} of {secret.host}.",
                hint="Give each host one secret a header.",
            )
        targets.add(target)


def decide(
    workspace: Workspace, change: EgressChange, templates: Templates, caller: Caller
) -> Egress:
    """The rules that a workspace is to have.

    Raises:
        Forbidden: they would be wider than its template permits.
        InvalidRequest: that change cannot be made to the rules it has.
    """
    if change.egress is not None and (change.allow or change.deny):
        raise InvalidRequest(
            "There are whole rules, and changes to those there are.",
            hint="Give egress, or allow and deny.",
        )
    if change.egress is not None:
        wanted = change.egress
    else:
        try:
            wanted = changed(workspace.egress, allow=change.allow, deny=change.deny)
        except ValueError as error:
            raise InvalidRequest(
                f"The rules cannot be changed like that: {error}.",
                hint="Ask for them first: GET .../egress.",
            ) from error
    if is_operator(caller) or covers(workspace.egress, wanted):
        return wanted
    try:
        template = templates.get(workspace.template)
    except TemplateNotFound:
        template = Template(name=workspace.template)
    if not covers(template.most_egress, wanted):
        raise _too_much(template)
    return wanted


def is_operator(caller: Caller) -> bool:
    return caller.role != "link" and RANK[caller.role] >= RANK["operator"]


def _too_much(template: Template) -> Forbidden:
    most = template.most_egress
    told = most if isinstance(most, str) else ", ".join(most[:20])
    return Forbidden(
        f"The template {template.name!r} lets its desktops reach less than that: {told}.",
        hint="Ask for less, or have an operator do it, or widen the template's egress_max.",
    )
