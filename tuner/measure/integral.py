"""Joules from watts, for devices that count none: apart from the devices, because it is arithmetic."""

from tuner.measure.count import CountError

GAP_S = 1.0
"""Power between two looks further apart than this is anybody's guess."""


class Integral:
    """Trapezoids under the power of one device, from read to read."""

    def __init__(self, now_s: float, watts: float) -> None:
        self.joules = 0.0
        self._until_s = self._seen_s = now_s
        self._watts = watts

    def extend(self, now_s: float, watts: float | None) -> str | None:
        """Add what was drawn since the last call, at the last known power where `watts` is None.

        Gives the reason why what was added is not the truth, None where it is. Raises CountError when power has
        not been known for GAP_S.
        """
        if watts is None:
            if now_s - self._seen_s > GAP_S:
                raise CountError(f"power is not known since {now_s - self._seen_s:.1f} s")
            watts = self._watts
        else:
            self._seen_s = now_s
        gap_s = now_s - self._until_s
        if gap_s <= GAP_S:
            self.joules += (self._watts + watts) / 2 * gap_s
        self._until_s, self._watts = now_s, watts
        return None if gap_s <= GAP_S else f"power was not looked at for {gap_s:.1f} s"
