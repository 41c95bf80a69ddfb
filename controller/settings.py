"""What can be set, and the only place of this room that reads environment variables.

Every setting is ``CARREL_<NAME>``. State lies under ``home`` (folders 0700, files 0600); sockets
lie in ``run_dir``, a short path of its own, because a unix socket's name allows 107 bytes only.
"""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from workspace import logs
from workspace.proxy.addresses import networks


def _default_home() -> Path:
    return Path("~/.local/state/carrel")


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))


def _origin(url: str) -> str:
    """An origin without a path: what a browser sends as ``Origin``."""
    if not url:
        return ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/"):
        raise ValueError("give an address without a path, such as https://carrel.example.org")
    return f"{parts.scheme}://{parts.netloc}"


def _artifacts(where: str) -> str:
    if where in ("", "none") or where.startswith(("s3:", "/", "~", ".")):
        return where
    raise ValueError("give s3://bucket/prefix, the path of a folder, or none")


def _origins(urls: str) -> str:
    """Origins by commas, each as a browser sends it."""
    return ",".join(_origin(url.strip()).lower() for url in urls.split(",") if url.strip())


def _networks(texts: str) -> str:
    networks(texts.split(","))
    return texts


Folder = Annotated[Path, AfterValidator(_absolute)]


class Settings(BaseSettings):
    """The controller's settings; see each field."""

    model_config = SettingsConfigDict(
        env_prefix="CARREL_", extra="ignore", frozen=True, populate_by_name=True
    )

    home: Annotated[Folder, Field(description="the state folder")] = Field(
        default_factory=_default_home, validate_default=True
    )
    host: Annotated[str, Field(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="0: any free one")] = 8700
    public_url: Annotated[
        str, AfterValidator(_origin), Field(description="how people reach it, if not directly")
    ] = ""
    ports_host: Annotated[
        str,
        Field(
            pattern=r"^([a-z0-9.-]+(:[0-9]{1,5})?)?$",
            description="all names below it lead here: servers in desktops get origins there. "
            "Default: localhost, if the public URL is of this machine",
        ),
    ] = ""
    tls_cert: Annotated[
        Folder | None, Field(description="a PEM file: serve TLS with this certificate chain ...")
    ] = None
    tls_key: Annotated[Folder | None, Field(description="... and this private key")] = None
    cors_origins: Annotated[
        str,
        AfterValidator(_origins),
        Field(description="by commas: other origins whose pages may ask, with a key"),
    ] = ""
    api_key: Annotated[
        SecretStr | None, Field(description="the admin key; without one home/api-key is used")
    ] = None
    secret: Annotated[
        SecretStr | None,
        Field(
            min_length=16,
            description="signs links, cookies and leases; several controllers share one. "
            "Without one home/secret is used",
        ),
    ] = None
    secrets_key: Annotated[
        SecretStr | None,
        Field(
            min_length=16,
            description="seals secrets that are kept; several controllers share one. "
            "Without one home/secrets-key is used. By commas: the first seals, all open",
        ),
    ] = None
    controllers: Annotated[
        str,
        Field(description="how nodes reach the controllers, by commas; default: the public URL"),
    ] = ""
    lease_grace_seconds: Annotated[
        float, Field(ge=10, le=86400, description="desktops end after so long without a controller")
    ] = 300
    oidc_issuer: Annotated[
        str, Field(pattern=r"^(https?://\S+)?$", description="an OpenID provider's own name: a URL")
    ] = ""
    oidc_client_id: Annotated[str, Field(description="what this controller is called there")] = ""
    oidc_client_secret: Annotated[
        SecretStr | None, Field(description="by which it redeems logins; a public client has none")
    ] = None
    oidc_audience: Annotated[
        str, Field(description="whom access tokens are for; default: the client id")
    ] = ""
    oidc_role_claim: Annotated[
        str, Field(min_length=1, description="the claim that says a role, or several")
    ] = "carrel_role"
    oidc_tenant_claim: Annotated[
        str, Field(min_length=1, description="the claim that says a tenant")
    ] = "carrel_tenant"
    database_url: Annotated[str, Field(description="SQLite, or postgresql://")] = ""
    redis_url: Annotated[
        str, Field(description="wakes controllers that follow the log; default: PostgreSQL does")
    ] = ""
    events_days: Annotated[
        float, Field(ge=0, le=36500, description="events are removed after that; 0: never")
    ] = 0
    template_dir: Annotated[Folder | None, Field(description="JSON files of templates")] = None

    tool_dir: Annotated[
        Folder | None, Field(description="packages of tool servers inside of desktops")
    ] = None
    tool_probe_seconds: Annotated[
        float, Field(ge=0.05, le=3600, description="how often tool servers are looked after")
    ] = 15

    webhook_url: Annotated[
        str,
        Field(pattern=r"^(https?://.+)?$", description="called when an agent asks for a person"),
    ] = ""
    webhook_secret: Annotated[
        SecretStr | None, Field(description="signs those calls: HMAC-SHA256 of the body")
    ] = None

    egress_private: Annotated[
        str,
        AfterValidator(_networks),
        Field(description="by commas: private networks that desktops may be let reach"),
    ] = ""

    run_dir: Annotated[Folder | None, Field(description="short folder for sockets")] = None
    disk_dir: Annotated[Folder | None, Field(description="where desktops' homes lie")] = None
    volume_dir: Annotated[Folder | None, Field(description="where volumes lie")] = None
    runtime_dir: Annotated[
        Folder | None, Field(description="the runtime desktopd runs from; default: the backend's")
    ] = None

    ray_address: Annotated[str, Field(description="a running Ray; empty: one of its own")] = ""
    ray_token: SecretStr | None = None
    cluster: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9-]{0,40}$",
            description="whose desktops these are, where several controllers share them",
        ),
    ] = ""
    replica: Annotated[
        str, Field(max_length=200, description="this controller's name; default: by host and home")
    ] = ""
    desktops: Annotated[
        int | None,
        Field(ge=1, le=10_000, description="places of this node's Ray; default: by memory"),
    ] = None
    memory_overcommit: Annotated[
        float | None,
        Field(
            ge=1,
            le=100,
            description="how many times a node's memory is given to its desktops; default: 3 on "
            "one machine, 1 in a Ray of several",
        ),
    ] = None
    node_labels: Annotated[
        str, Field(description="by commas: what `carrel ray node` calls this node: zone=a,gpu=a100")
    ] = ""
    head_storage: Annotated[
        str,
        Field(description="redis://host:6379 or rocksdb:/folder: what Ray's head keeps there"),
    ] = ""
    placement: Literal["spread", "pack"] = "spread"
    backend: Annotated[
        Literal["bubblewrap", "docker", "kata"], Field(description="of templates that name none")
    ] = "bubblewrap"

    artifacts: Annotated[
        str,
        AfterValidator(_artifacts),
        Field(description="s3://bucket/prefix, a folder, or none: where artifacts are kept"),
    ] = ""
    artifact_endpoint: Annotated[
        str, AfterValidator(_origin), Field(description="of an S3 that is not Amazon's")
    ] = ""
    artifact_region: Annotated[str, Field(description="of S3; default: by AWS's own settings")] = ""
    artifact_mib: Annotated[int, Field(ge=1, description="of all artifacts, at most")] = 100 << 10
    artifact_workspace_mib: Annotated[
        int, Field(ge=1, description="of one workspace's artifacts, at most")
    ] = 2048
    artifact_days: Annotated[
        float, Field(ge=0, description="an artifact is removed after that; 0: never")
    ] = 30
    artifact_frame_days: Annotated[
        float | None, Field(ge=0, description="and a frame after that; default: the same")
    ] = None
    log_format: Annotated[logs.Form, Field(description="how lines of the log are written")] = "text"
    otlp_endpoint: Annotated[
        str,
        Field(
            validation_alias=AliasChoices("CARREL_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
            description="where traces are sent by OTLP over HTTP; empty: none are made",
        ),
    ] = ""

    @model_validator(mode="after")
    def _both_of_tls(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("CARREL_TLS_CERT and CARREL_TLS_KEY go together")
        return self

    @model_validator(mode="after")
    def _both_of_oidc(self) -> Settings:
        if bool(self.oidc_issuer) != bool(self.oidc_client_id):
            raise ValueError("CARREL_OIDC_ISSUER and CARREL_OIDC_CLIENT_ID go together")
        return self

    @property
    def other_origins(self) -> list[str]:
        """Whose pages may ask beside the controller's own."""
        return self.cors_origins.split(",") if self.cors_origins else []

    @property
    def url(self) -> str:
        """How this machine reaches the controller: over TLS, by the name that it certifies."""
        if self.tls_cert is not None and self.public_url:
            return self.public_url
        scheme = "http" if self.tls_cert is None else "https"
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)
        return (
            f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"
        )

    @property
    def public_origin(self) -> str:
        """How people reach the controller."""
        return self.public_url or self.url

    @property
    def controller_urls(self) -> list[str]:
        """How nodes reach the controllers."""
        given = [_origin(url.strip()) for url in self.controllers.split(",") if url.strip()]
        return given or [self.public_origin]

    @property
    def address_file(self) -> Path:
        """Where a controller with a Ray of its own notes for its desktops where it serves."""
        return self.home / "controller-url"

    @property
    def name(self) -> str:
        """Eight letters that stand for this home: two homes never share a folder or a Ray."""
        return hashlib.sha256(str(self.home).encode()).hexdigest()[:8]

    @property
    def cluster_name(self) -> str:
        """Whose desktops these are in a Ray that others use too."""
        return self.cluster or self.name

    @property
    def replica_name(self) -> str:
        """What this controller is called among others of its database: no two have the same."""
        return self.replica or f"{socket.gethostname()}-{self.name}"

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{self.home / 'carrel.db'}"

    @property
    def templates(self) -> Path:
        return self.template_dir or self.home / "templates"

    @property
    def sockets(self) -> Path:
        """The short folder for sockets and the controller's lock."""
        if self.run_dir is not None:
            return self.run_dir
        if os.geteuid() == 0:
            return Path("/run/carrel") / self.name
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        if runtime and os.access(runtime, os.W_OK):
            return Path(runtime) / f"carrel-{self.name}"
        return Path(f"/tmp/carrel-{os.geteuid()}-{self.name}")

    @property
    def disks(self) -> Path:
        """Where the desktops' home folders lie. Root's are outside /root: other uids own them."""
        if self.disk_dir is not None:
            return self.disk_dir / f"desktops-{self.name}"
        if os.geteuid() == 0:
            return Path("/var/lib/carrel") / f"desktops-{self.name}"
        return self.home / "desktops"

    @property
    def volumes(self) -> Path:
        """Where volumes lie, on every node: beside the homes, and for good."""
        return self.volume_dir or self.disks.parent / f"volumes-{self.cluster_name}"

    @property
    def tools(self) -> Path:
        """Where packages of tool servers lie, on every node. Root's are outside /root."""
        if self.tool_dir is not None:
            return self.tool_dir
        if os.geteuid() == 0:
            return Path("/var/lib/carrel") / f"tools-{self.name}"
        return self.home / "tools"

    @property
    def is_one_of_several(self) -> bool:
        """Whether other controllers may serve the same desktops."""
        return bool(self.ray_address) and not self.database.startswith("sqlite")

    @property
    def artifact_folder(self) -> Path:
        """Where artifacts lie, if they lie on this machine."""
        return _absolute(Path(self.artifacts)) if self.artifacts else self.home / "artifacts"

    @property
    def incoming(self) -> Path:
        """Where artifacts are held until they are whole."""
        return self.home / "incoming"

    @property
    def key_file(self) -> Path:
        return self.home / "api-key"

    @property
    def secret_file(self) -> Path:
        return self.home / "secret"

    @property
    def secrets_key_file(self) -> Path:
        return self.home / "secrets-key"
