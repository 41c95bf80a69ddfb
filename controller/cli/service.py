"""Commands about the service itself: start it, end it, and see how it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from controller.cli import output
from controller.cli.output import Json

if TYPE_CHECKING:
    from controller.settings import Settings
    from workspace.backends.doctor import Check
    from workspace.fleet import PoolStatus, Status
    from workspace.models import Node

MAX_NODES = 12  # at a glance


def add_to(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(doctor)


def up(
    port: Annotated[int | None, typer.Option(help="Default 8700; 0: any free one.")] = None,
    host: Annotated[str | None, typer.Option(help="Default 127.0.0.1.")] = None,
    claim: Annotated[
        list[str] | None, typer.Option(metavar="TEMPLATE", help="Have a desktop of it ready.")
    ] = None,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="In the background.")] = False,
    json: Json = False,
) -> None:
    """Start Carrel on this machine: dashboard, REST, MCP, and a Ray of its own."""
    from controller.cli import process
    from controller.cli.serve import listen, serve

    settings = process.settings(port=port, host=host)
    if not detach:
        return serve(settings, claim or [])
    process.refuse_second(settings)
    with listen(settings.host, settings.port):
        pass  # what is taken is told at once, and as such
    arguments = [f"--port={settings.port}", f"--host={settings.host}"]
    arguments += [f"--claim={template}" for template in claim or []]
    with output.progress("Starting Carrel"):
        url, pid = process.start_detached(settings, arguments)
    output.result({"url": url, "pid": pid}, f"ready {url} (process {pid}; `carrel down` ends it)")


def down(json: Json = False) -> None:
    """End this home's controller, every desktop and its Ray."""
    from controller.cli import process

    with output.progress("Ending Carrel"):
        ended = process.stop(process.settings())
    output.result({"ended": ended}, ended)


def status(json: Json = False) -> None:
    """Whether Carrel runs, its nodes, pools and queue, and its desktops."""
    from controller.cli import process
    from controller.cli.connect import controller, run
    from ray_cluster.local import LocalRay
    from workspace.errors import Unavailable

    settings = process.settings()
    pid = process.running(settings)
    has_ray = LocalRay(settings.sockets).is_kept()
    if pid is None and has_ray:
        raise Unavailable(
            "No controller runs, but a Ray that an earlier one left still does.",
            hint="`carrel up` takes it over with its desktops; `carrel down` ends it.",
        )

    async def main() -> None:
        async with controller() as carrel:
            live, seen = await carrel.list(), await carrel.status()
            url = carrel.url
        if json:
            return output.result(
                {
                    "url": url,
                    "pid": pid,
                    "ray": has_ray,
                    **seen.model_dump(mode="json"),
                    "desktops": [one.model_dump(mode="json") for one in live],
                }
            )
        where = f"process {pid}, {settings.home}" if pid is not None else "not of this home"
        print(f"controller  {url} ({where})")
        for what, told in glance(seen):
            print(f"{what:<11} {output.inert(told)}")
        print()
        output.workspaces(live)

    run(main)


def glance(seen: Status) -> Iterator[tuple[str, str]]:
    """What there is to see, each with what it is."""
    if len(seen.controllers) > 1:
        for one in seen.controllers:
            yield "replica", one.id + (" (leads)" if one.leads else "")
    for told in _nodes(seen.nodes):
        yield "node", told
    for told in _pools(seen.pools):
        yield "pool", told
    yield "queue", f"{seen.waiting} claims wait" if seen.waiting else "no claims wait"
    yield "strays", str(seen.strays or "none")
    for told in seen.troubles:
        yield "trouble", told


def _nodes(nodes: Sequence[Node]) -> Iterator[str]:
    """A line for each, of very many the first."""
    from controller.cli.nodes import memory

    for node in nodes[:MAX_NODES]:
        if not node.alive:
            yield f"{node.name} (lost)"
            continue
        told = [f"{node.desktops} of {node.slots} desktops"]
        told += [f"{node.warm} warm"] if node.warm else []
        told += ["draining"] if node.draining else []
        told += [f"{free} free"] if (free := memory(node)) else []
        yield f"{node.name} ({', '.join(told)})"
    if more := nodes[MAX_NODES:]:
        alive = [node for node in more if node.alive]
        used, slots = (sum(getattr(n, name) for n in alive) for name in ("desktops", "slots"))
        yield f"{len(more)} more ({used} of {slots} desktops); `carrel nodes` lists them"


def _pools(pools: Iterable[PoolStatus]) -> Iterator[str]:
    """A line for each pool that keeps anything, or should."""
    from controller.cli.scale import hits

    for pool in pools:
        if pool.state == "idle" and not pool.warm + pool.warming:
            continue
        told = f"{pool.template} ({pool.state.replace('_', ' ')}, {pool.warm} of {pool.target} warm"
        if pool.warming:
            told += f", {pool.warming} starting"
        if served := hits(pool):
            told += f"; {served} claims had a warm one"
        yield told + (f"): {pool.reason}" if pool.reason else ")")


def doctor(
    json: Json = False,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="A Kubernetes cluster, in place of this machine.")
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="Run a pod there, to see what it can do.")
    ] = True,
) -> None:
    """What this machine lacks to run desktops, and how to mend it. Exit code 1 if anything."""
    from controller import containers
    from controller.cli import process
    from workspace.backends.containers.checks import checks as of_containers
    from workspace.backends.doctor import checks

    settings = process.settings()
    options = containers.options(settings)
    if cluster:
        found = _of_cluster(settings, probe)
    elif options is not None:
        found = list(of_containers(options))
    else:
        found = checks(settings.runtime_dir)
    output.result(
        [
            {"name": c.name, "ok": c.is_ok, "detail": c.detail, "mend": "" if c.is_ok else c.mend}
            for c in found
        ]
    )
    for check in [] if json else found:
        print(f"{'ok     ' if check.is_ok else 'MISSING'}  {check.name:<16}  {check.detail}")
        if not check.is_ok and check.mend:
            print(f"         mend it: {check.mend}")
    if not all(check.is_ok for check in found):
        raise typer.Exit(1)


def _of_cluster(settings: Settings, is_probing: bool) -> list[Check]:
    """What a cluster lacks, as its own settings and those of Ray here describe it."""
    from controller import pods
    from ray_cluster.connection import is_served
    from workspace.backends.doctor import Check
    from workspace.backends.kube import checks
    from workspace.backends.kube.options import Place
    from workspace.errors import InvalidRequest
    from workspace.settings import kata_place

    options = pods.options()
    if options is None:
        raise InvalidRequest(
            "There is no CARREL_KATA_IMAGE: desktops are no pods here.",
            hint="Run it with the settings of the controller, in its pod: "
            "kubectl -n carrel exec deploy/carrel -- carrel doctor --cluster",
        )
    place = Place.model_validate(kata_place())
    found = list(checks.checks(options, place, is_probing=is_probing))
    address = settings.ray_address
    if address:
        detail = f"{address} {'answers' if is_served(address) else 'does not answer'}."
        mend = "Look at the pods of Ray; CARREL_RAY_ADDRESS is its head, with port 6379."
        found.append(Check("Ray", is_served(address), detail, mend))
    return found
