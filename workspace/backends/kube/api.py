"""The Kubernetes API by the official client: requests in plain JSON, and a watch line by line.

Only its generic client is used (credentials, TLS, connections): the classes of its API take 20 MiB
more. Everything here blocks, and is called in threads. What is refused is an :class:`Answer` like
any other; only an API that cannot be reached raises.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlencode

import urllib3.exceptions
from kubernetes import config
from kubernetes.client.api_client import ApiClient
from kubernetes.client.configuration import Configuration
from kubernetes.client.exceptions import ApiException

from workspace.backends.kube.faults import Answer, Away

CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 20.0
WATCH_SECONDS = 240  # then the server ends it, and it is opened anew
MAX_BODY_BYTES = 64 << 20  # of a list
MAX_LINE_BYTES = 4 << 20  # of a watch
PAGE = 250
_AGAIN = frozenset({429, 500, 502, 503, 504})
_FIRST_PAUSE, _MOST_PAUSE = 0.1, 3.0
_CHUNK = 64 << 10
# An API server that has just started answers before it knows its roles and accounts: what it
# refuses for lack of a right, so soon after it was away, is asked again.
STARTING_SECONDS = 10.0
_UNKNOWN = frozenset({401, 403})
log = logging.getLogger(__name__)


class Event(NamedTuple):
    """One line of a watch."""

    type: str
    object: dict[str, Any]  # Any: JSON values


class Api:
    """One API server, as a kubeconfig or this pod's service account names it. Where neither can be
    had, that is what every request raises.
    """

    def __init__(self, kubeconfig: str = "") -> None:
        settings = Configuration()
        settings.retries = False  # ours is below: it knows what may be asked again
        self._lacking = ""
        self._was_away_at = float("-inf")
        settings.keep_alive = True  # a cut link is noticed within a minute, in a watch too
        try:
            if kubeconfig:
                load: Any = config.load_kube_config  # Any: neither is typed
                load(config_file=kubeconfig, client_configuration=settings)
            else:
                load = config.load_incluster_config
                load(client_configuration=settings)
        except (config.ConfigException, OSError) as error:
            where = kubeconfig or "this pod's service account"
            self._lacking = f"the credentials of {where} cannot be had: {error}"
        self.host = str(settings.host)
        self._client = ApiClient(configuration=settings)

    def close(self) -> None:
        self._client.rest_client.pool_manager.clear()

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: dict[str, str] | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> Answer:
        """Ask, and again for ``seconds`` while the API is away, too busy (429), or has failed.

        So a POST may be done twice: the second answer is then a 409, of an object of one's own.

        Raises:
            Away: it could not be reached in all that time.
        """
        until = time.monotonic() + seconds
        pause = _FIRST_PAUSE
        while True:
            answer: Answer | None = None
            why = ""
            try:
                answer = self._once(method, path, body, query, until)
                if answer.status not in _AGAIN and not self._may_be_starting(answer):
                    return answer
                pause = max(pause, min(answer.retry_seconds, _MOST_PAUSE * 4))
            except (urllib3.exceptions.HTTPError, ApiException, OSError, ValueError) as error:
                why = _words(error)
                self._was_away_at = time.monotonic()
                log.debug("%s %s: %s", method, path, why)
            pause *= random.uniform(0.8, 1.2)
            if time.monotonic() + pause > until:
                if answer is not None:
                    return answer
                raise Away(f"{self.host} cannot be reached: {why}")
            time.sleep(pause)
            pause = min(pause * 2, _MOST_PAUSE)

    def _may_be_starting(self, answer: Answer) -> bool:
        is_new = time.monotonic() - self._was_away_at < STARTING_SECONDS
        return is_new and answer.status in _UNKNOWN

    def list_all(self, path: str, *, query: dict[str, str], seconds: float) -> Answer:
        """Every item of a list, page by page, with the first page's version."""
        items: list[Any] = []  # Any: JSON values
        page = dict(query) | {"limit": str(PAGE)}
        whole: Answer | None = None
        while True:
            answer = self.ask("GET", path, query=page, seconds=seconds)
            if (
                answer.status == 410 and "continue" in page
            ):  # the rest of this list is too old: from its beginning
                items, page, whole = [], dict(query), None
                continue
            if answer.status != 200:
                return answer
            items += answer.body.get("items") or []
            whole = whole or answer
            following = (answer.body.get("metadata") or {}).get("continue")
            if not following:
                return whole._replace(body=whole.body | {"items": items})
            page["continue"] = following

    def watch(self, path: str, *, query: dict[str, str], version: str) -> Iterator[Event]:
        """What changes after ``version``, until the server ends it.

        Raises:
            Away: it cannot be reached, broke off, or refused; ``status`` says how.
        """
        asked = query | {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        try:
            response = self._send("GET", path, None, asked, (CONNECT_SECONDS, WATCH_SECONDS + 10.0))
            try:
                if response.status != 200:
                    answer = _answer(response)
                    raise Away(f"{self.host} gives no watch: {answer.message}", answer.status)
                for line in _lines(response):
                    said = json.loads(line)
                    yield Event(said["type"], said["object"])
            finally:
                response.close()
        except (urllib3.exceptions.HTTPError, ApiException, OSError, ValueError, KeyError) as error:
            self._was_away_at = time.monotonic()
            raise Away(f"{self.host} broke off: {_words(error)}") from error

    def text(self, path: str, *, query: dict[str, str]) -> str:
        """A body that is no JSON: the log of a container; empty if it cannot be had."""
        try:
            response = self._send("GET", path, None, query, (CONNECT_SECONDS, REQUEST_SECONDS))
            data: bytes = response.read(MAX_LINE_BYTES)
            response.close()
            return data.decode(errors="replace") if response.status == 200 else ""
        except (urllib3.exceptions.HTTPError, ApiException, OSError):
            return ""

    def _once(
        self, method: str, path: str, body: object, query: dict[str, str] | None, until: float
    ) -> Answer:
        left = max(1.0, min(REQUEST_SECONDS, until - time.monotonic()))
        times = (min(CONNECT_SECONDS, left), left)
        response = self._send(method, path, body, query, times)
        try:
            answer = _answer(response)
        except BaseException:
            response.close()
            raise
        response.release_conn()  # to its pool: all of it is read
        return answer

    def _send(
        self,
        method: str,
        path: str,
        body: object,
        query: dict[str, str] | None,
        times: tuple[float, float],
    ) -> Any:  # Any: urllib3's answer, which the client does not type
        if self._lacking:
            raise Away(self._lacking)
        headers = {"Accept": "application/json"}
        if body is not None:
            kind = "merge-patch+json" if method == "PATCH" else "json"
            headers["Content-Type"] = f"application/{kind}"
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self.host + path + (f"?{urlencode(query)}" if query else "")
        return self._client.call_api(
            method, url, header_params=headers, body=body, _request_timeout=times
        ).response


def _answer(response: Any) -> Answer:  # Any: as in _send
    data = response.read(MAX_BODY_BYTES + 1)
    if len(data) > MAX_BODY_BYTES:
        raise ValueError("its answer is too long")
    try:
        body = json.loads(data)
    except ValueError:
        body = {"message": data[:500].decode(errors="replace").strip()}
    after = response.headers.get("Retry-After", "")
    return Answer(
        response.status,
        body if isinstance(body, dict) else {},
        float(after) if after.isdecimal() else 0.0,
    )


def _lines(response: Any) -> Iterator[bytes]:  # Any: as in _send
    held = b""
    for chunk in response.stream(_CHUNK):
        held += chunk
        *lines, held = held.split(b"\n")
        yield from (line for line in lines if line.strip())
        if len(held) > MAX_LINE_BYTES:
            raise ValueError("a line of its watch is too long")


def _words(error: Exception) -> str:
    reason = getattr(error, "reason", None)
    return " ".join(str(reason or error).split())[:300] or type(error).__name__
