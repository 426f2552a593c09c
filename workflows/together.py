"""Calls that do not wait for each other; one place, so that all methods fail and are cancelled alike."""

import asyncio
from collections.abc import Coroutine
from collections.abc import Iterable
from typing import Any
from typing import TypeVar

T = TypeVar("T")


async def together(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What the calls return, in their order, made concurrently. Raises what the first to fail raised, the others being cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
