"""A real node: containerd, runc and a kubelet, and nodes that are only told of.

RuntimeClass ``kata-clh`` means the handler of that name, which is runc here: a pod runs as it would
under Kata, but for the virtual machine.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx

from tests.kubernetes.control import ControlPlane
from tests.kubernetes.images import PAUSE
from tests.kubernetes.namespaces import ADDRESS, BRIDGE, FIRST_POD, PODS, Namespaces
from tests.kubernetes.programs import Program, built
from tests.waiting import until

NODE = "node1"
HANDLER = "kata-clh"
KATA = {"katacontainers.io/kata-runtime": "true"}
CGROUP = f"carrel-tests-{secrets.token_hex(4)}"  # all that the node makes lies below it
SNAPSHOTTER = "overlayfs"
_READY_SECONDS = 60
_CGROUPS = Path("/sys/fs/cgroup")


class Node:
    def __init__(self, control: ControlPlane, folder: Path, profiles: Path) -> None:
        """``profiles`` are the seccomp profiles that pods may name."""
        self.folder = folder
        self.control = control
        self.cgroups = [each / CGROUP for each in _CGROUPS.iterdir() if (each / "tasks").exists()]
        assert self.cgroups, "the test node is made for control groups of version 1"
        self._namespaces = Namespaces(folder / "machine", built() / "catatonit")
        # Where this kubelet looks for them, whatever its own folder is.
        shutil.copytree(profiles, folder / "machine" / "var" / "lib" / "kubelet" / "seccomp")
        self.socket = folder / "containerd.sock"
        self._write()
        within = self._namespaces.command
        self.containerd = Program(
            "containerd",
            [built() / "containerd", "--config", folder / "containerd.toml"],
            folder,
            within,
        )
        self.kubelet = Program("kubelet", self._kubelet(), folder, within)

    def _kubelet(self) -> list[str | Path]:
        control, own = self.control, self.folder
        control.authority.sign("kubelet", f"system:node:{NODE}", "system:nodes")
        labels = ",".join(f"{key}={value}" for key, value in KATA.items())
        return [
            built() / "kubelet",
            "--config", own / "kubelet.json",
            "--kubeconfig", control.kubeconfig("kubelet"),
            "--root-dir", own / "kubelet",
            "--cert-dir", own / "kubelet" / "pki",
            "--hostname-override", NODE,
            "--node-ip", ADDRESS,
            "--node-labels", labels,
            "--container-runtime", "remote",
            "--container-runtime-endpoint", f"unix://{self.socket}",
        ]  # fmt: skip

    def _write(self) -> None:
        own = self.folder
        # Without CAP_SYS_RESOURCE nobody may make a process less likely to be killed.
        restrict = "false" if _may_use_all_resources() else "true"
        (own / "containerd.toml").write_text(f"""
version = 2
root = "{own}/containerd"
state = "{own}/containerd-state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
address = "{self.socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
disable_apparmor = true
restrict_oom_score_adj = {restrict}
disable_tcp_service = true
stream_server_address = "{ADDRESS}"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{built()}/cni"
conf_dir = "{own}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{SNAPSHOTTER}"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{HANDLER}]
runtime_type = "io.containerd.runc.v2"
pod_annotations = ["io.katacontainers.*"]
""")
        bridge = {
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": True,
            "ipam": {
                "type": "host-local",
                "dataDir": f"{own}/addresses",
                "ranges": [[{"subnet": PODS, "rangeStart": FIRST_POD, "gateway": ADDRESS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        (own / "cni").mkdir()
        (own / "cni" / "net.conflist").write_text(
            json.dumps({"cniVersion": "0.4.0", "name": "tests", "plugins": [bridge]})
        )
        kubelet = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": str(self.control.authority.certificate)},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{CGROUP}",
            "enforceNodeAllocatable": ["pods"],
            "failSwapOn": False,
            "evictionHard": {"memory.available": "50Mi"},
            "imageGCHighThresholdPercent": 100,
            "resolvConf": "/dev/null",
            "volumePluginDir": str(own / "plugins"),
            "nodeStatusUpdateFrequency": "2s",
            # It ends a pod that was deleted while it started no sooner than when it looks again.
            "syncFrequency": "2s",
            "featureGates": {
                "LocalStorageCapacityIsolation": False,
                "SizeMemoryBackedVolumes": True,  # or a /dev/shm of 256Mi has half of the memory
            },
        }
        (own / "kubelet.json").write_text(json.dumps(kubelet))

    def start(self) -> None:
        """Start what runs containers; :meth:`join` is next, with images or without."""
        for group in self.cgroups:
            group.mkdir()
            if "cpuset" in group.parts[-2]:
                for name in ("cpuset.cpus", "cpuset.mems"):
                    (group / name).write_text((group.parent / name).read_text())
        self.containerd.start()
        until(self._answers, 20)

    def _answers(self) -> bool:
        self.containerd.assert_alive()
        return self.socket.exists() and self._ctr("version").returncode == 0

    def join(self) -> None:
        """Be a node of the cluster, and ready."""
        self.kubelet.start()
        self.until_ready()

    def until_ready(self) -> None:
        with self.control.admin() as admin:
            until(lambda: self._is_ready(admin), _READY_SECONDS)

    def _is_ready(self, admin: httpx.Client) -> bool:
        self.kubelet.assert_alive()
        return is_ready(admin, NODE)

    def import_image(self, archive: Path) -> None:
        """A docker-archive, whose reference is the image's name."""
        done = self._ctr(
            "-n", "k8s.io", "images", "import", "--snapshotter", SNAPSHOTTER, str(archive)
        )
        assert done.returncode == 0, done.stderr
        assert "unpacking" in done.stdout, f"{archive} has no name in its reference"

    def _ctr(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = self._namespaces.command(str(built() / "ctr"), "-a", str(self.socket), *words)
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    def stop(self) -> None:
        """End it, with all that runs on it, and leave nothing."""
        self.kubelet.kill()
        self.containerd.kill()
        self._namespaces.end()
        for top in _CGROUPS.glob(f"*/{CGROUP}"):  # of version 2 too, where both are mounted
            until(lambda top=top: _removed(top), 20)  # type: ignore[misc]


def _removed(top: Path) -> bool:
    for folder, _, _ in os.walk(top, topdown=False):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            pass
        except OSError:
            return False  # its last processes are ending
    return not top.exists()


def _may_use_all_resources() -> bool:
    status = Path("/proc/self/status").read_text()
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff")]
    return bool(int(mask, 16) >> 24 & 1)  # CAP_SYS_RESOURCE


def is_ready(admin: httpx.Client, name: str) -> bool:
    told = admin.get(f"/api/v1/nodes/{name}")
    if told.status_code != 200:
        return False
    conditions = told.json().get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


class ToldOf:
    """A node that is only told of: what is put there is bound to it, and never runs."""

    def __init__(self, admin: httpx.Client, name: str, labels: dict[str, str]) -> None:
        self._admin = admin
        self.name = name
        self._is_over = threading.Event()
        metadata = {"name": name, "labels": labels | {"kubernetes.io/hostname": name}}
        made = admin.post(
            "/api/v1/nodes", json={"apiVersion": "v1", "kind": "Node", "metadata": metadata}
        )
        made.raise_for_status()
        self._live()
        self._thread = threading.Thread(target=self._go_on)
        self._thread.start()

    def _go_on(self) -> None:
        while not self._is_over.wait(2):
            self._live()

    def _live(self) -> None:
        room = {"cpu": "8", "memory": "16Gi", "pods": "100"}
        status: dict[str, Any] = {
            "capacity": room,
            "allocatable": room,
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "Told", "message": "",
                 "lastHeartbeatTime": _now(), "lastTransitionTime": _now()}
            ],
            "nodeInfo": {
                **dict.fromkeys(
                    ("machineID", "systemUUID", "bootID", "osImage", "containerRuntimeVersion",
                     "kubeProxyVersion"), "told"),
                "kernelVersion": "6.1.0-told", "kubeletVersion": "v1.20.2",
                "operatingSystem": "linux", "architecture": "amd64",
            },
        }  # fmt: skip
        self._admin.patch(
            f"/api/v1/nodes/{self.name}/status",
            json={"status": status, "spec": {"taints": []}},
            headers={"Content-Type": "application/merge-patch+json"},
        ).raise_for_status()

    def remove(self) -> None:
        self._is_over.set()
        self._thread.join(10)
        self._admin.delete(f"/api/v1/nodes/{self.name}").raise_for_status()


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
