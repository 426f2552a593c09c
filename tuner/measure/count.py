"""What a device's own count of joules shows of itself that must not be believed; apart, as several meters read one."""


class CountError(Exception):
    """What a count says cannot be true."""


class Count:
    """Remembers one count, of a device that never draws so little that it stands still for `stuck_s`.

    One that does is stuck, and its zero must not be taken for thrift.
    """

    def __init__(self, *, stuck_s: float) -> None:
        self._stuck_s = stuck_s
        self._last = -1.0
        self._moved_s = 0.0
        self._was_reset = False

    def believed(self, count: float, now_s: float) -> float:
        """The count. Raises CountError.

        After a reset there is no count any more: among several devices, the growth of the others would hide
        what was lost.
        """
        self._was_reset |= count < self._last
        if self._was_reset:
            raise CountError("went back: the GPU or its driver was reset since the start")
        if count > self._last:
            self._last = count
            self._moved_s = now_s
        elif now_s - self._moved_s > self._stuck_s:
            raise CountError(f"has not moved for {now_s - self._moved_s:.1f} s")
        return count
