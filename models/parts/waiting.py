"""Time that a unit takes, noted in the timeline: what the processes of several accelerators do at each step."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import simpy

    from ...simulator.timeline import Timeline


def pass_time(
    env: simpy.Environment, timeline: Timeline | None, track: str, name: str, ticks: int, per_cycle: int = 1
) -> Generator[simpy.Event, Any, None]:
    """Pass ``ticks``, of which a cycle has ``per_cycle``, and note them on ``track``, in whole cycles."""
    start = int(env.now)
    yield env.timeout(ticks)
    if timeline is not None:
        timeline.interval(track, name, start // per_cycle, int(env.now) // per_cycle)
