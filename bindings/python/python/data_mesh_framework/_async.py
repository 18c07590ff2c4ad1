"""Work in a thread, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from . import _core
from ._stop import STOP
from .errors import DataMeshError

T = TypeVar("T")


class _Stopped(DataMeshError):
    """How work ends in its thread when its task was cancelled."""


async def in_thread(work: Callable[[], T]) -> T:
    """Does it in a thread. Cancelling stops it, and waits until it has ended."""
    stop = _core.Stop()

    def stoppable() -> T:
        STOP.set(stop)
        try:
            return work()
        except KeyboardInterrupt as error:
            # In a task it would end the loop.
            raise _Stopped("the task was cancelled", code="interrupted") from error

    task = asyncio.ensure_future(asyncio.to_thread(stoppable))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.stop()
        # Only its end tells what became of it.
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
