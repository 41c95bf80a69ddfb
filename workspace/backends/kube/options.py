"""How desktops are run in a Kubernetes cluster, and where in it a process is."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

_DAY = 86400

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Subdomain = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$")]


class Options(BaseModel):
    """How desktops are run in a Kubernetes cluster: the settings ``CARREL_KATA_*``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^\S+$")]
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    pull_secret: Subdomain = ""
    namespace: Annotated[Name, Field(description="of the desktops, and of nothing else")] = (
        "carrel-desktops"
    )
    control_namespace: Annotated[
        Name, Field(description="of the controllers and Ray, which reach desktops")
    ] = "carrel"
    runtime_class: Annotated[
        Subdomain, Field(min_length=1, description="a RuntimeClass, as kata-deploy names them")
    ] = "kata-clh"
    seccomp: Annotated[
        str,
        Field(
            pattern=r"^(RuntimeDefault|Unconfined|Localhost:[\w./-]+)$",
            description="RuntimeDefault, Unconfined, or Localhost:<a file of the kubelet's>",
        ),
    ] = "RuntimeDefault"
    port: Annotated[int, Field(ge=1024, le=65535, description="where desktopd listens")] = 7000
    proxy_ports: Annotated[
        str, Field(description="of nodes: where desktops' ways out are served")
    ] = "21000-21999"
    shm_mib: Annotated[int, Field(ge=64, le=1 << 20, description="of /dev/shm")] = 512
    tmp_mib: Annotated[int, Field(ge=64, le=1 << 20, description="of /tmp")] = 1024
    cpu_request: Annotated[
        float, Field(gt=0, le=1, description="which part of its processors a desktop is promised")
    ] = 0.25
    start_seconds: Annotated[
        float, Field(ge=1, le=110, description="less than controllers wait: this error says more")
    ] = 100.0
    stop_seconds: Annotated[
        float, Field(ge=1, le=9, description="how long the end of a pod is waited for")
    ] = 8.0
    most_seconds: Annotated[
        int, Field(ge=60, description="a pod's activeDeadlineSeconds: the last net against leaks")
    ] = 7 * _DAY
    storage_class: Subdomain = ""
    volume_access: Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"] = "ReadWriteOnce"
    kubeconfig: Annotated[
        str, Field(description="a file; without one, the service account of the pod it runs in")
    ] = ""

    @field_validator("proxy_ports")
    @classmethod
    def _is_range(cls, text: str) -> str:
        first, dash, last = text.partition("-")
        is_range = bool(dash) and first.isdecimal() and last.isdecimal()
        if not is_range or not 1024 <= int(first) <= int(last) <= 65535:
            raise ValueError("two ports with a dash between, as 21000-21999")
        return text

    @property
    def ports(self) -> range:
        first, _, last = self.proxy_ports.partition("-")
        return range(int(first), int(last) + 1)


class Place(BaseModel):
    """Where this process runs, as the downward API tells it; empty outside of a cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    node: Annotated[Subdomain, Field(description="spec.nodeName")] = ""
    pod: Subdomain = ""
    pod_uid: Annotated[str, Field(max_length=64)] = ""
    pod_ip: Annotated[str, Field(description="where this pod's desktops reach their proxies")] = ""
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9-]{0,63}$")] = ""

    @field_validator("pod_ip")
    @classmethod
    def _is_address(cls, text: str) -> str:
        return str(ipaddress.ip_address(text)) if text else ""
