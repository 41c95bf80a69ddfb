"""Actors by the ids of their desktops: their names in Ray, and the handles that they are called by.

Ray is asked for a handle once, which takes longer than what is asked of the actor then. One whose
actor died is dropped, and whoever calls the desktop next is told that there is none.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from ray_cluster.asking import RAY_SECONDS, Asking, Wire
from workspace.errors import DesktopLost, Unavailable, WorkspaceNotFound

if TYPE_CHECKING:
    from ray.actor import ActorHandle

PREFIX = "desktop-"
MAX_HANDLES = 20_000


class Handles:
    """Those of one namespace."""

    def __init__(self, asking: Asking, namespace: str) -> None:
        import ray

        self._ray = ray
        self._asking = asking
        self._namespace = namespace
        self._kept: dict[str, ActorHandle[Any]] = {}  # Any: Ray's handles are not typed by class

    async def names(self) -> list[str]:
        """The ids of all desktops whose actors live, start or wait for a place."""
        from ray.util import list_named_actors

        return _ours(await self._asking.call(list_named_actors))

    async def all_names(self) -> list[str]:
        """The same, in whatever namespace."""
        from ray.util import list_named_actors

        def listed() -> list[str]:
            found: Any = list_named_actors(all_namespaces=True)  # Any: Ray's hint is for one only
            return [each["name"] for each in found]

        return _ours(await self._asking.call(listed))

    def keep(self, workspace_id: str, handle: ActorHandle[Any]) -> None:  # Any: as above
        self._kept[workspace_id] = handle
        while len(self._kept) > MAX_HANDLES:  # the oldest, which can be asked for again
            del self._kept[next(iter(self._kept))]

    def drop(self, workspace_id: str) -> None:
        self._kept.pop(workspace_id, None)

    async def get(self, workspace_id: str) -> ActorHandle[Any]:  # Any: as above
        """
        Raises:
            WorkspaceNotFound: there is none.
        """
        if (known := self._kept.get(workspace_id)) is not None:
            return known

        def get() -> ActorHandle[Any] | None:  # Any: as above
            try:
                handle: ActorHandle[Any] = self._ray.get_actor(  # Any: as above
                    PREFIX + workspace_id, namespace=self._namespace
                )
            except ValueError:
                return None
            return handle

        if (handle := await self._asking.call(get)) is None:
            raise WorkspaceNotFound(f"There is no desktop {workspace_id} in the cluster.")
        self.keep(workspace_id, handle)
        return handle

    async def tell(
        self,
        workspace_id: str,
        what: str,
        *arguments: object,
        seconds: float = RAY_SECONDS,
    ) -> Wire:
        """One call to a desktop's actor, and what it answers.

        Raises:
            WorkspaceNotFound: there is none by now.
            DesktopLost, TimedOut: see :meth:`Asking.ask`; and what the actor tells of.
        """
        handle = await self.get(workspace_id)
        try:
            return await self._asking.ask(getattr(handle, what).remote(*arguments), seconds=seconds)
        except DesktopLost:
            self.drop(workspace_id)
            await self.get(workspace_id)  # it may be long gone: that is said otherwise
            raise

    async def kill(self, workspace_id: str, handle: ActorHandle[Any]) -> None:  # Any: as above
        """End the actor's process and free its name and place."""
        self.drop(workspace_id)
        await self._asking.call(lambda: self._ray.kill(handle))
        deadline = time.monotonic() + RAY_SECONDS
        while workspace_id in await self.names():
            if time.monotonic() > deadline:
                raise Unavailable(f"Ray did not end the actor of desktop {workspace_id}.")
            await asyncio.sleep(0.01)


def _ours(names: list[str]) -> list[str]:
    return [name.removeprefix(PREFIX) for name in names if name.startswith(PREFIX)]
