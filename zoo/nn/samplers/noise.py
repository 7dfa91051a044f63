"""Random numbers of samples: those of a sample depend on its index and the seed, not on the number of samples."""

import hashlib

import torch
from torch import Tensor

BLOCK = 16  # numbers that torch makes together on a CPU; it draws the last ones of an incomplete block again


def normal(n: int, *shape: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw standard normal numbers (n, *shape) on the CPU; the first rows are equal for every n."""
    size = n * torch.Size(shape).numel()
    return torch.randn(-(-size // BLOCK) * BLOCK, generator=generator)[:size].view(n, *shape)


def fork(generator: torch.Generator | None, name: str) -> torch.Generator:
    """Make a generator for further random numbers of the same samples.

    It depends on the state of the given one and on the name, and leaves the given one unchanged. Fork before the first
    draw: afterwards, the state depends on the number of samples.

    Args:
        generator: on the CPU; None is torch's global one.
        name: what the numbers are for.
    """
    state = (torch.default_generator if generator is None else generator).get_state()
    digest = hashlib.blake2b(state.numpy().tobytes() + name.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def step_noise(generator: torch.Generator | None, step: int, n: int, *shape: int) -> Tensor:
    """Draw standard normal numbers (n, *shape) of one step of a sampler, by a fork of the generator of all steps."""
    return normal(n, *shape, generator=fork(generator, str(step)))
