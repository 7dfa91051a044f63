"""Constants of a network, such as angles of positions, that keep their precision."""

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn


class FixedConstants(nn.Module):
    """Module whose own buffers stay in float32 when its weights are converted to another type; they move with it.

    The 8 significant bits of bfloat16 do not distinguish positions above 256.
    """

    def _apply(self, fn: Callable[..., Tensor], recurse: bool = True) -> Self:
        """Move or convert the weights, as `to` does; constants move only."""
        constants = {name: value for name, value in self._buffers.items() if value is not None}
        super()._apply(fn, recurse)
        for name, value in constants.items():
            if not value.is_meta:
                self._buffers[name] = value.to(self.get_buffer(name).device)
        return self
