"""An event loop is not closed over tasks that are under way."""

import asyncio

import pytest

from vdm.runtime import event_loops


def closed_after_an_error() -> list[str]:
    """What tasks did that were under way when the main one failed and its loop was closed."""
    ended: list[str] = []

    async def late(name: str, then: str | None = None) -> None:
        await asyncio.sleep(0.01)
        if then is not None:
            asyncio.get_running_loop().create_task(late(then))
        ended.append(name)

    async def fails() -> None:
        asyncio.get_running_loop().create_task(late("read", then="follow-up"))
        raise OSError("the first read")

    loop = asyncio.new_event_loop()
    with pytest.raises(OSError, match="the first read"):
        loop.run_until_complete(fails())
    loop.close()
    assert loop.is_closed()
    return ended


def test_what_is_under_way_ends_before_its_loop_does():
    before = asyncio.get_event_loop_policy()
    with event_loops.finishing():
        assert closed_after_an_error() == ["read", "follow-up"]
    assert asyncio.get_event_loop_policy() is before
