"""A control plane: etcd, kube-apiserver, kube-controller-manager and kube-scheduler."""

from __future__ import annotations

import base64
import json
import ssl
from pathlib import Path
from typing import Any

import httpx

from tests.kubernetes.certificates import Authority
from tests.kubernetes.namespaces import ADDRESS, SERVICE
from tests.kubernetes.programs import Program, built
from tests.waiting import until

PORT = 443  # as pods are told
URL = f"https://127.0.0.1:{PORT}"
ETCD = "http://127.0.0.1:2379"
_READY_SECONDS = 60
# Who asked what, of all that is asked: what is counted. A watch is told of when it begins.
_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["ResponseStarted", "ResponseComplete", "Panic"],
    "rules": [{"level": "Metadata"}],
}


class ControlPlane:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        hosts = ["127.0.0.1", ADDRESS, SERVICE, "localhost", "kubernetes.default.svc"]
        self.authority.sign("apiserver", "kube-apiserver", hosts=hosts)
        self.authority.sign("admin", "admin", "system:masters")
        self.authority.sign("to-kubelet", "kube-apiserver", "system:masters")
        for name in ("kube-controller-manager", "kube-scheduler"):
            self.authority.sign(name, f"system:{name}")
        self.authority.key_pair("accounts")
        self.audit_log = folder / "audit.log"
        (folder / "audit.yaml").write_text(json.dumps(_AUDIT))
        self.etcd = Program("etcd", self._etcd(), folder)
        self.api = Program("kube-apiserver", self._api(), folder)
        self.controllers = Program("kube-controller-manager", self._controllers(), folder)
        self.scheduler = Program(
            "kube-scheduler",
            [
                built() / "kube-scheduler",
                "--kubeconfig", self.kubeconfig("kube-scheduler"),
                "--leader-elect=false", "--port=0", "--secure-port=0",
            ],
            folder,
        )  # fmt: skip
        self.programs = [self.etcd, self.api, self.controllers, self.scheduler]

    def _etcd(self) -> list[str | Path]:
        data = self.folder / "etcd"
        return [
            built() / "etcd", "--data-dir", data, "--unsafe-no-fsync",
            "--listen-client-urls", ETCD, "--advertise-client-urls", ETCD,
            "--listen-peer-urls", "http://127.0.0.1:2380", "--log-level", "warn",
        ]  # fmt: skip

    def _api(self) -> list[str | Path]:
        own = self.folder
        return [
            built() / "kube-apiserver",
            "--etcd-servers", ETCD,
            "--secure-port", str(PORT), "--bind-address", "0.0.0.0",
            "--advertise-address", ADDRESS,
            "--service-cluster-ip-range", f"{SERVICE}/24",
            "--authorization-mode", "Node,RBAC",
            "--enable-admission-plugins", "NodeRestriction",
            "--client-ca-file", own / "ca.crt",
            "--tls-cert-file", own / "apiserver.crt",
            "--tls-private-key-file", own / "apiserver.key",
            "--kubelet-client-certificate", own / "to-kubelet.crt",
            "--kubelet-client-key", own / "to-kubelet.key",
            "--kubelet-preferred-address-types", "InternalIP",
            "--service-account-issuer", "https://kubernetes.default.svc",
            "--service-account-key-file", own / "accounts.pub",
            "--service-account-signing-key-file", own / "accounts.key",
            "--audit-policy-file", own / "audit.yaml",
            "--audit-log-path", self.audit_log, "--audit-log-mode", "blocking",
            "--etcd-compaction-interval", "0",
            "--endpoint-reconciler-type", "none",
        ]  # fmt: skip

    def _controllers(self) -> list[str | Path]:
        return [
            built() / "kube-controller-manager",
            "--kubeconfig", self.kubeconfig("kube-controller-manager"),
            "--leader-elect=false", "--port=0", "--secure-port=0",
            "--use-service-account-credentials",
            "--service-account-private-key-file", self.folder / "accounts.key",
            "--root-ca-file", self.folder / "ca.crt",
            "--node-monitor-period=1s", "--node-monitor-grace-period=8s",
        ]  # fmt: skip

    def start(self) -> None:
        self.etcd.start()
        self.api.start()
        self.until_ready()
        self.controllers.start()
        self.scheduler.start()

    def until_ready(self) -> None:
        with self.admin() as admin:
            until(lambda: self._is_ready(admin), _READY_SECONDS)

    def _is_ready(self, admin: httpx.Client) -> bool:
        self.etcd.assert_alive()
        self.api.assert_alive()
        try:
            return admin.get("/readyz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        for program in reversed(self.programs):
            program.kill()

    def admin(self) -> httpx.Client:
        """Who may do all."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        context.load_cert_chain(self.folder / "admin.crt", self.folder / "admin.key")
        return httpx.Client(base_url=URL, verify=context, trust_env=False, timeout=60)

    def kubeconfig(self, name: str, token: str = "", url: str = URL, user: str = "") -> Path:
        """A file for who has the certificate of that name, or a token."""
        own = self.folder
        cluster = {"server": url, "certificate-authority-data": _data(own / "ca.crt")}
        known: dict[str, str] = {"token": token}
        if not token:
            known = {
                "client-certificate-data": _data(own / f"{user or name}.crt"),
                "client-key-data": _data(own / f"{user or name}.key"),
            }
        spec: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "tests", "user": known}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
        }
        path = own / f"{name}.kubeconfig"
        path.write_text(json.dumps(spec))
        path.chmod(0o600)
        return path

    def compact(self) -> None:
        """Nothing but what there is now is known of any object's past."""
        with httpx.Client(base_url=ETCD, trust_env=False, timeout=20) as etcd:
            status = etcd.post("/v3/maintenance/status", json={})
            revision = status.raise_for_status().json()["header"]["revision"]
            etcd.post(
                "/v3/kv/compaction", json={"revision": revision, "physical": True}
            ).raise_for_status()


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
