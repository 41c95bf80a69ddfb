"""Artifacts' bytes in S3, or in anything that speaks as it does: an object for each, by digest.

Credentials are found where AWS's own tools find them (``AWS_ACCESS_KEY_ID``, profiles, a role of
the machine or the pod). Every request is bounded in time and tried twice at most; its body's
digest is signed, so what arrives is what was sent or is refused. An object appears whole: of what
is larger than a part, when the last one is there; parts that were sent in vain are taken back, or
left to the bucket's own rule for them if the server is gone. No redirect is followed.

The only module that knows the library, which is imported when it is used.
"""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
from anyio.to_thread import run_sync

from controller.artifacts.blobs import PIECE_BYTES, Blob, Found, checked, is_digest
from workspace.errors import (
    ArtifactDamaged,
    BackendUnavailable,
    CarrelError,
    InvalidRequest,
    Unavailable,
)

CONNECT_SECONDS = 3.0
READ_SECONDS = 8.0  # until an answer begins, or goes on
TRIES = 2
PART_BYTES = 8 << 20  # at least 5 MiB, by S3's rules
PART_SECONDS = 40.0  # what sending one takes at most, both tries
CALL_SECONDS = 20.0
AT_ONCE = 20
_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/[A-Za-z0-9!_.*'()/-]*)?")
_WRONG = {
    "NoSuchBucket": "there is no such bucket",
    "AccessDenied": "access is denied",
    "403": "access is denied",
    "InvalidAccessKeyId": "the access key is not known",
    "SignatureDoesNotMatch": "the secret key is wrong",
    "ExpiredToken": "the credentials have expired",
}
_GONE = frozenset({"NoSuchKey", "404", "NotFound"})


class S3:
    """A bucket of blobs, or a part of one; see :class:`controller.artifacts.blobs.Blobs`."""

    def __init__(self, url: str, *, endpoint: str = "", region: str = "") -> None:
        """
        Raises:
            InvalidRequest: that is no ``s3://bucket/prefix``.
            BackendUnavailable: the library is not installed.
        """
        match = _URL.fullmatch(url)
        if match is None:
            raise InvalidRequest(
                f"{url[:200]!r} names no bucket of S3.",
                hint="Set CARREL_ARTIFACTS to s3://bucket or s3://bucket/prefix.",
            )
        self.bucket = match[1]
        prefix = (match[2] or "").strip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint = endpoint or None
        self._region = region or None
        self._client: Any = None  # Any: made of the service's own description; it has no type
        self._library = _library()

    @property
    def place(self) -> str:
        where = f" at {self._endpoint}" if self._endpoint else ""
        return f"s3://{self.bucket}/{self._prefix}{where}"

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        config = self._library.AioConfig(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"total_max_attempts": TRIES, "mode": "standard"},
            max_pool_connections=AT_ONCE,
            # A whole part is one write of it, and the call has a bound of its own.
            connector_args={"write_timeout": PART_SECONDS, "pool_timeout": CALL_SECONDS},
            http_session_cls=self._library.Session,
            # What other servers than Amazon's may not know is only sent where it must be.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={
                "payload_signing_enabled": True,
                "addressing_style": "path" if self._endpoint else "auto",
            },
        )
        async with AsyncExitStack() as stack:
            opening = self._library.get_session().create_client(
                "s3",
                region_name=self._region or ("us-east-1" if self._endpoint else None),
                endpoint_url=self._endpoint,
                config=config,
            )
            with self._told():
                self._client = await stack.enter_async_context(opening)
            if self._endpoint is not None:
                self._client.meta.events.register_first("needs-retry.s3", _stay)
            yield

    async def check(self) -> None:
        try:
            await self._call("head_bucket")
        except ArtifactDamaged as error:  # a HEAD's answer says no more than 404
            raise self._unavailable(_WRONG["NoSuchBucket"], error) from error

    async def has(self, digest: str, size: int) -> bool:
        try:
            head = await self._call("head_object", Key=self._key(digest))
        except ArtifactDamaged:
            return False
        return bool(head["ContentLength"] == size)

    async def put(self, blob: Blob) -> None:
        key = self._key(blob.digest)
        if isinstance(blob.source, bytes) or blob.size <= PART_BYTES:
            body = await run_sync(_part, blob.source, 0, PART_BYTES + blob.size)
            await self._call("put_object", PART_SECONDS, Key=key, Body=body)
        else:
            await self._put_parts(key, blob.source, blob.size)

    async def _put_parts(self, key: str, source: Path, size: int) -> None:
        made = await self._call("create_multipart_upload", Key=key)
        upload: dict[str, Any] = {"Key": key, "UploadId": made["UploadId"]}  # Any: as above
        try:
            parts = []
            # As many parts as there may be: of what is very large, each is larger.
            length = max(PART_BYTES, -(-size // 9_000))
            for number, start in enumerate(range(0, size, length), 1):
                body = await run_sync(_part, source, start, length)
                sent = await self._call(
                    "upload_part", PART_SECONDS, **upload, PartNumber=number, Body=body
                )
                parts.append({"PartNumber": number, "ETag": sent["ETag"]})
            whole = {"Parts": parts}
            await self._call("complete_multipart_upload", **upload, MultipartUpload=whole)
        except BaseException:
            with anyio.CancelScope(shield=True), suppress(CarrelError):
                await self._call("abort_multipart_upload", **upload)
            raise

    @asynccontextmanager
    async def open(self, digest: str) -> AsyncIterator[AsyncIterator[bytes]]:
        answer = await self._call("get_object", Key=self._key(digest))
        async with answer["Body"] as body:

            async def pieces() -> AsyncIterator[bytes]:
                with self._told():
                    while piece := await body.read(PIECE_BYTES):
                        yield piece

            yield pieces()

    async def remove(self, digest: str) -> None:
        await self._call("delete_object", Key=self._key(digest))

    async def page(self, after: str, limit: int) -> list[Found]:
        start: dict[str, Any] = {"StartAfter": self._key(after)} if after else {}  # Any: as above
        told = await self._call(
            "list_objects_v2", Prefix=self._prefix, MaxKeys=min(limit, 1000), **start
        )
        named = (
            (each["Key"].removeprefix(self._prefix), each) for each in told.get("Contents", [])
        )
        return [
            Found(name, each["Size"], each["LastModified"])
            for name, each in named
            if is_digest(name)
        ]

    def _key(self, digest: str) -> str:
        return f"{self._prefix}{checked(digest)}"

    async def _call(
        self, operation: str, seconds: float = CALL_SECONDS, **arguments: Any
    ) -> Any:  # Any: what the library takes and answers, by the operation's name
        """
        Raises:
            ArtifactDamaged: there is no such object.
            Unavailable: everything else.
        """
        call = getattr(self._client, operation)
        with self._told():
            with anyio.fail_after(seconds):
                return await call(Bucket=self.bucket, **arguments)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong in the block, as an error of the tree."""
        library = self._library
        try:
            yield
        except library.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _GONE:
                raise ArtifactDamaged(f"Its bytes are not in {self.place}.") from error
            raise self._unavailable(_WRONG.get(code, f"it answers {code}"), error) from error
        except library.NoCredentialsError as error:
            raise self._unavailable("there are no credentials for it", error) from error
        except TimeoutError as error:
            raise self._unavailable("it does not answer in time", error) from error
        except (library.BotoCoreError, *library.NETWORK, OSError) as error:
            raise self._unavailable(f"{type(error).__name__} {error}".strip(), error) from error

    def _unavailable(self, why: str, error: BaseException) -> Unavailable:
        return Unavailable(
            f"The artifacts in {self.place} cannot be reached: {why[:300]}.",
            hint="What was acknowledged is kept; try again in a moment. Whoever runs the "
            "controller should look at CARREL_ARTIFACTS, its endpoint and its credentials.",
        )


def _stay(request_dict: dict[str, Any], **_others: Any) -> None:  # Any: the library's own
    """Have the library not look for another region of a server that answers with a redirect."""
    request_dict["context"].setdefault("s3_redirect", {})["redirected"] = True


def _part(source: bytes | Path, start: int, length: int) -> bytes:
    if isinstance(source, bytes):
        return source[start : start + length]
    with source.open("rb") as file:
        file.seek(start)
        return file.read(length)


class _Library:
    """What is used of the library."""

    def __init__(self) -> None:
        import httpx2
        from aiobotocore.config import AioConfig  # type: ignore[import-untyped]  # has no stubs
        from aiobotocore.httpxsession import (  # type: ignore[import-untyped]  # likewise
            HttpxSession,
        )
        from aiobotocore.session import get_session  # type: ignore[import-untyped]  # likewise
        from botocore.exceptions import (  # type: ignore[import-untyped]  # likewise
            BotoCoreError,
            ClientError,
            NoCredentialsError,
        )

        self.AioConfig = AioConfig

        class Session(HttpxSession):  # type: ignore[misc]  # it has no type
            """Follows no redirects, as aiohttp's does; sends a body whole, and not line by line."""

            async def send(self, request: Any) -> Any:  # Any: the library's own
                if isinstance(request.body, io.BytesIO):
                    request.body = request.body.getvalue()
                return await super().send(request)

        self.Session = Session
        self.get_session = get_session
        self.ClientError = ClientError
        self.BotoCoreError = BotoCoreError
        self.NoCredentialsError = NoCredentialsError
        self.NETWORK = (httpx2.HTTPError, httpx2.StreamError)  # of a body that breaks off


def _library() -> _Library:
    try:
        return _Library()
    except ImportError as error:
        raise BackendUnavailable(
            "Artifacts in S3 need a library that is not installed here.",
            hint="Install it: pip install 'carrel[s3]'.",
        ) from error
