"""Tones that are drawn from a known distribution."""

import math

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.audio.segments import Segments
from zoo.data.audio.synthesizer import hertz
from zoo.data.base import Split
from zoo.data.loader import make_generator

PITCHES = (60, 62, 64, 65, 67, 69, 71, 72)  # a major scale from middle C
NOISE = 0.01  # standard deviation
RATE = 4000
SIZES = (2000, 200, 200)  # of the splits


@register("data", "synthetic_tones")
class SyntheticTones(Segments):
    """Synthetic tones of a major scale, with noise: the pitch is the label.

    A tone is a sine with its octave at a third of the amplitude. Amplitude and phases are random, and normal noise of
    standard deviation 0.01 is added. Given the tone, the samples are independent, so that the least number of bits per
    sample has a floor: see `tone_bits`.

    Args:
        samples: of a sound, 4,000 per second.
        batch_size: sounds per batch.
        seed: seed of the training order; the sounds do not depend on it.
    """

    licence = "generated"

    def __init__(self, *, samples: PositiveInt = 512, batch_size: PositiveInt = 16, seed: int = 0) -> None:
        super().__init__(samples, RATE, len(PITCHES), batch_size, seed)

    def read(self) -> tuple[Split, Split, Split]:
        """Draw 2,000, 200 and 200 tones."""
        generator, parts = make_generator(0), []
        for n in SIZES:
            clean, labels = draw(n, self.samples, generator)
            parts.append((clean + NOISE * torch.randn(clean.shape, generator=generator), labels))
        return parts[0], parts[1], parts[2]


def draw(n: int, samples: int, generator: torch.Generator) -> Split:
    """Tones without noise (n, samples), and their labels (n,)."""
    labels = torch.randint(len(PITCHES), (n,), generator=generator)
    frequency = torch.tensor([hertz(pitch) for pitch in PITCHES])[labels][:, None]
    amplitude = 0.3 + 0.3 * torch.rand(n, 1, generator=generator)
    phase = 2 * math.pi * torch.rand(n, 2, generator=generator)
    angle = 2 * math.pi * frequency * torch.arange(samples) / RATE
    return amplitude * ((angle + phase[:, :1]).sin() + (2 * angle + phase[:, 1:]).sin() / 3), labels


def tone_bits(codes: Tensor, clean: Tensor, edges: Tensor) -> Tensor:
    """-log2 of the probability of each code given its tone without noise, bits of the same shape.

    Its mean is a floor of bits per sample, because no model reads the tone.

    Args:
        codes: of a quantiser of samples.
        clean: tones without noise.
        edges: bounds of the codes' intervals, increasing, from -inf to inf, one more than codes.
    """
    below, above = ((edges[codes + k].double() - clean.double()) / NOISE for k in (0, 1))
    upper = below > 0  # differences of small numbers are exact, those of numbers near one are not
    low, high = torch.where(upper, -above, below), torch.where(upper, -below, above)
    return -((torch.special.ndtr(high) - torch.special.ndtr(low)).clamp(min=1e-300)).log2()
