"""What the two versions of targeted dropout share: the ramp of share and rate (Gomez et al. 2019, "ramping targeted dropout").

The targeted share rises linearly to 95 % of its final value in the first half of the ramp and to all of it in the second; the rate at
which what is targeted is dropped rises linearly over the whole ramp.
"""

from __future__ import annotations

from pydantic import Field

from dropasr.config import Options


class TargetOptions(Options):
    """Keys of both versions."""

    rate: float = Field(default=0.9, gt=0, le=1)
    """alpha: how often what is targeted is dropped, after the ramp."""
    ramp: float = Field(default=0.38, gt=0, le=1)
    """Share of the steps in which targeted share and rate rise."""

    def ramped_share(self, progress: float) -> float:
        """Targeted share, as a share of the final one, when the share `progress` of the steps is done."""
        half = 2 * progress / self.ramp
        return 0.95 * min(half, 1.0) + 0.05 * min(max(half - 1, 0.0), 1.0)

    def ramped_rate(self, progress: float) -> float:
        """Rate of dropping when the share `progress` of the steps is done."""
        return self.rate * min(progress / self.ramp, 1.0)
