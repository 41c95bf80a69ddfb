"""What a cluster lacks to run desktops: `carrel doctor --cluster`, and a look when it is started.

Each check is a function with a clear answer. Only :func:`probe` changes anything: it runs one pod
as a desktop would run, reads what it says, and deletes it.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from workspace.backends import manifests
from workspace.backends.doctor import Check
from workspace.backends.kube import pods, rights
from workspace.backends.kube.faults import Answer, Away, is_taken, no_class, refused
from workspace.backends.kube.options import Options, Place
from workspace.errors import BackendUnavailable, CarrelError

if TYPE_CHECKING:
    from workspace.backends.kube.api import Api

Spec = dict[str, Any]  # Any: JSON values

SECONDS = 8.0
PROBE_SECONDS = 90.0
_POLL_SECONDS = 0.5
_AGAIN = "Ask again."
_APPLY = "kubectl apply -k deploy/"
_QEMU_SHARE = 0.5  # of a node's memory: what its /dev/shm holds by default
# A port of the API server: every pod is told of it, and no desktop may reach it.
_SCRIPT = (
    'echo "kernel=$(uname -r)"; '
    'if timeout 4 bash -c "exec 3<>/dev/tcp/$KUBERNETES_SERVICE_HOST/$KUBERNETES_SERVICE_PORT" '
    "2>/dev/null; then echo api=open; else echo api=closed; fi"
)
log = logging.getLogger(__name__)


def connect(options: Options) -> Api:
    """
    Raises:
        BackendUnavailable: the client of Kubernetes is not installed.
    """
    try:
        from workspace.backends.kube.api import Api
    except ImportError as error:
        raise BackendUnavailable(
            f"Desktops as pods need a package that is not there: {error.name}.",
            hint="pip install 'carrel[kubernetes]'",
        ) from error
    return Api(options.kubeconfig)


def check_class(options: Options) -> None:
    """That the RuntimeClass exists, where the API can be asked. Blocks.

    Raises:
        BackendUnavailable: it does not.
    """
    api = connect(options)
    try:
        found = runtime_class(api, options, seconds=SECONDS)
    except Away as error:
        log.warning("the Kubernetes API cannot be asked about its RuntimeClasses: %s", error)
        return
    finally:
        api.close()
    if not found.is_ok:
        raise BackendUnavailable(found.detail, hint=found.mend)


def checks(
    options: Options, place: Place, *, is_probing: bool = True, api: Api | None = None
) -> Iterator[Check]:
    """Everything that desktops need of a cluster, in the order to mend it in. Blocks."""
    api = api or connect(options)
    first = reachable(api)
    yield first
    if not first.is_ok:
        return
    steps: list[Callable[[], Check]] = [
        lambda: namespace(api, options),
        lambda: may(api, options, rights.RUNNING),
        lambda: runtime_class(api, options),
        lambda: nodes(api, options),
        lambda: closed(api, options),
        lambda: shared_memory(api, options),
    ]
    for step in steps:
        try:
            yield step()
        except Away as error:
            yield _went_away(error)
            return
    if is_probing:
        yield from probe(api, options, place)


def _went_away(error: Away) -> Check:
    return Check("Kubernetes API", False, f"It went away: {error}.", _AGAIN)


def reachable(api: Api) -> Check:
    name = "Kubernetes API"
    try:
        answer = api.ask("GET", "/version", seconds=SECONDS)
    except Away as error:
        mend = "Run this in a pod with a service account, or name CARREL_KATA_KUBECONFIG."
        return Check(name, False, f"{error}.", mend)
    if answer.status == 401:
        mend = "Give the pod its service account, or name a kubeconfig that is valid."
        return Check(name, False, f"{api.host} does not accept our credentials.", mend)
    version = answer.body.get("gitVersion", "of unknown version")
    return Check(name, answer.status == 200, f"{api.host}, {version}.", "See its own log.")


def namespace(api: Api, options: Options) -> Check:
    """Whether objects can be listed there at all: a namespace's own object needs one more right."""
    path = rights.path("", "pods", namespace=options.namespace)
    answer = api.ask("GET", path, query={"limit": "1"}, seconds=SECONDS)
    if answer.status == 200:
        return Check("namespace", True, f"{options.namespace}.")
    error = refused(f"The pods of namespace {options.namespace} cannot be listed", answer)
    return Check("namespace", False, error.message, error.hint or _APPLY)


def may(api: Api, options: Options, wanted: tuple[rights.Right, ...]) -> Check:
    """Which rights are missing, all of them."""
    missing: list[str] = []
    needed = False
    for right in wanted:
        for verb in right.verbs:
            if not _is_allowed(api, options, right, verb):
                group = f".{right.group}" if right.group else ""
                missing.append(f"{verb} {right.resource}{group}")
                needed = needed or right.is_needed
    if not missing:
        return Check("rights", True, "Everything that is asked of the API is allowed.")
    note = "" if needed else " Desktops run without; some things are told less well."
    return Check("rights", not needed, f"Missing: {', '.join(missing)}.{note}", _APPLY)


def _is_allowed(api: Api, options: Options, right: rights.Right, verb: str) -> bool:
    resource, _, subresource = right.resource.partition("/")
    asked = {"verb": verb, "group": right.group, "resource": resource}
    if subresource:
        asked["subresource"] = subresource
    if right.is_namespaced:
        asked["namespace"] = options.namespace
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": asked},
    }
    path = rights.path("authorization.k8s.io", "selfsubjectaccessreviews")
    answer = api.ask("POST", path, review, seconds=SECONDS)
    return answer.status == 201 and bool((answer.body.get("status") or {}).get("allowed"))


def runtime_class(api: Api, options: Options, *, seconds: float = SECONDS) -> Check:
    """Whether there is one of that name; else which of Kata's there are."""
    name = options.runtime_class
    answer = api.ask("GET", _classes(name), seconds=seconds)
    if answer.status == 200:
        handler = answer.body.get("handler", "")
        return Check("RuntimeClass", True, f"{name}, by the handler {handler}.")
    if answer.status == 404:
        told = api.ask("GET", _classes(), seconds=seconds)
        names = tuple(str(each["metadata"]["name"]) for each in told.body.get("items") or ())
        error: CarrelError = no_class(name, names)
    else:
        error = refused(f"The RuntimeClass {name} cannot be looked at", answer)
        if answer.status == 403:  # a pod that names it tells
            return Check("RuntimeClass", True, f"Not known: {error.message}")
    return Check("RuntimeClass", False, error.message, error.hint)


def _classes(name: str = "") -> str:
    return rights.path("node.k8s.io", "runtimeclasses", name=name)


def nodes(api: Api, options: Options) -> Check:
    """Which nodes the class is for, and whether they have its handler (told since 1.31)."""
    name = "nodes"
    asked = _fitting(api, options)
    if isinstance(asked, Answer):
        return Check(name, True, f"Not known: {refused('They cannot be listed', asked).message}")
    fitting, handler, wanted = asked
    if not fitting:
        labels = ", ".join(f"{key}={value}" for key, value in wanted.items()) or "none"
        detail = f"No node has the labels of the RuntimeClass ({labels})."
        return Check(name, False, detail, "Install Kata on nodes by its Helm chart kata-deploy.")
    tells = {node: known for node, known in fitting.items() if known is not None}
    lacking = sorted(node for node, known in tells.items() if handler not in known)
    if lacking:
        detail = f"Without the handler {handler}: {', '.join(lacking[:10])}."
        mend = "Look at kata-deploy's pod there, and at containerd's configuration."
        return Check(name, False, detail, mend)
    note = "" if tells else " Whether they have the handler, this Kubernetes does not tell."
    return Check(name, True, f"{len(fitting)} can run desktops.{note}")


def _fitting(
    api: Api, options: Options
) -> Answer | tuple[dict[str, set[str] | None], str, dict[str, str]]:
    """The nodes of the class with the handlers that each tells of, its handler, and its labels."""
    known = api.ask("GET", _classes(options.runtime_class), seconds=SECONDS)
    told = api.list_all(rights.path("", "nodes"), query={}, seconds=SECONDS)
    if told.status != 200:
        return told
    wanted = (known.body.get("scheduling") or {}).get("nodeSelector") or {}
    found: dict[str, set[str] | None] = {}
    for node in told.body["items"]:
        labels = node["metadata"].get("labels") or {}
        if wanted.items() <= labels.items() and not (node.get("spec") or {}).get("unschedulable"):
            handlers = (node.get("status") or {}).get("runtimeHandlers")
            found[node["metadata"]["name"]] = (
                {str(each.get("name")) for each in handlers} if handlers else None
            )
    return found, str(known.body.get("handler", "")), wanted


def closed(api: Api, options: Options) -> Check:
    """Whether the namespace is closed but for what each desktop's own policy lets through."""
    name = "NetworkPolicy"
    path = rights.path("networking.k8s.io", "networkpolicies", namespace=options.namespace)
    answer = api.list_all(path, query={}, seconds=SECONDS)
    if answer.status != 200:
        return Check(name, False, refused("They cannot be listed", answer).message, _APPLY)
    for each in answer.body["items"]:
        spec = each["spec"]
        is_all = not (spec.get("podSelector") or {})
        opens = spec.get("ingress") or spec.get("egress")
        if is_all and not opens and set(spec.get("policyTypes") or ()) == {"Ingress", "Egress"}:
            return Check(name, True, "The namespace of desktops is closed by default.")
    return Check(name, False, "The namespace of desktops is not closed by default.", _APPLY)


def shared_memory(api: Api, options: Options) -> Check:
    """With QEMU a guest's memory lies in the node's /dev/shm, which holds half of it by default."""
    name = "/dev/shm"
    if "qemu" not in options.runtime_class:
        return Check(name, True, f"{options.runtime_class} keeps guests' memory elsewhere.")
    told = api.list_all(rights.path("", "nodes"), query={}, seconds=SECONDS)
    if told.status != 200:
        return Check(name, True, f"Not known: {refused('Nodes cannot be listed', told).message}")
    sizes = [_mib(str(node["status"]["capacity"]["memory"])) for node in told.body["items"]]
    most = int(min(sizes, default=0) * _QEMU_SHARE)
    detail = (
        "QEMU keeps guests' memory in the node's /dev/shm: unless that was made larger, the "
        f"smallest node has {most} MiB for all of its desktops together."
    )
    return Check(name, True, detail)


def probe(api: Api, options: Options, place: Place) -> Iterator[Check]:
    """Run a pod as a desktop would run: its image, its own kernel, and that it is shut in."""
    name = f"carrel-probe-{uuid.uuid4().hex[:8]}"
    path = rights.path("", "pods", namespace=options.namespace)
    try:
        made = api.ask("POST", path, manifests.probe_pod(name, options, place, _SCRIPT))
        if made.status not in (200, 201) and not is_taken(made):  # its name is ours alone
            error = refused("A pod for a probe could not be made", made)
            yield Check("probe pod", False, error.message, error.hint or _AGAIN)
            return
        pod, error_ = _run(api, options, f"{path}/{name}")
        if error_ is not None:
            yield Check("probe pod", False, error_.message, error_.hint or _AGAIN)
            return
        words = api.text(f"{path}/{name}/log", query={"container": manifests.CONTAINER})
        said = dict(line.partition("=")[::2] for line in words.splitlines())
        node = str(pod["spec"].get("nodeName") or "")
        yield Check("probe pod", True, f"The image {options.image} runs on node {node}.")
        yield own_kernel(api, node, said.get("kernel", ""))
        yield shut_in(said.get("api", ""))
    except Away as gone:
        yield _went_away(gone)
    finally:
        left = ""
        try:
            told = api.ask("DELETE", f"{path}/{name}", manifests.DELETE_OPTIONS, seconds=SECONDS)
            left = "" if told.status in (200, 202, 404) else told.message
        except Away as gone:
            left = str(gone)
        if left:
            log.error("the pod %s of the probe is left: %s", name, left)


def _run(api: Api, options: Options, path: str) -> tuple[Spec, CarrelError | None]:
    """The pod once it has succeeded, or why it will not."""
    began = time.monotonic()
    looked = began
    while True:
        told = api.ask("GET", path)
        if told.status != 200:
            return {}, refused("The probe's pod cannot be looked at", told)
        pod = told.body
        waited = time.monotonic() - began
        if (pod.get("status") or {}).get("phase") == "Succeeded":
            return pod, None
        error = pods.failure(pod, image=options.image, waited=waited)
        if error is None and time.monotonic() - looked > 3:
            looked = time.monotonic()
            parent, _, name = path.rpartition("/")
            query = {"fieldSelector": f"involvedObject.name={name}"}
            events = api.ask("GET", f"{parent.rpartition('/')[0]}/events", query=query).body
            error = pods.told(events.get("items") or (), runtime_class=options.runtime_class)
        if error is None and waited > PROBE_SECONDS:
            error = BackendUnavailable(f"The probe did not end in time ({pods.phase(pod)}).")
        if error is not None:
            return pod, error
        time.sleep(_POLL_SECONDS)


def own_kernel(api: Api, node: str, kernel: str) -> Check:
    """A virtual machine has another kernel than its node."""
    name = "own kernel"
    told = api.list_all(rights.path("", "nodes"), query={}, seconds=SECONDS)
    if told.status != 200 or not kernel:
        return Check(name, True, f"Not known: the pod has {kernel or 'told nothing'}.")
    for each in told.body["items"]:
        if each["metadata"]["name"] == node:
            host = str(each["status"]["nodeInfo"]["kernelVersion"])
            detail = f"The pod runs {kernel}, its node {host}."
            mend = "The handler is not Kata: desktops would share the node's kernel."
            return Check(name, kernel != host, detail, mend)
    return Check(name, True, f"Not known: there is no node {node!r} any more.")


def shut_in(api_is: str) -> Check:
    """A pod of the namespace must not reach the API server, which every cluster has."""
    name = "shut in"
    if api_is == "closed":
        return Check(name, True, "A pod there does not reach the API server.")
    if api_is == "open":
        detail = "A pod there reaches the API server: the cluster enforces no NetworkPolicy."
        mend = "Use a network that enforces them (Calico, Cilium), and apply deploy/."
        return Check(name, False, detail, mend)
    return Check(name, False, "The probe told nothing of the network.", "Look at the image's bash.")


def _mib(amount: str) -> int:
    units = {"Ki": 1 / 1024, "Mi": 1.0, "Gi": 1024.0, "Ti": 1024.0 * 1024}
    for unit, factor in units.items():
        if amount.endswith(unit):
            return int(float(amount[:-2]) * factor)
    return int(float(amount)) >> 20
