"""Sounds through a model and back, beside the sounds themselves and Griffin-Lim.

    python -m zoo.benchmarks.resynthesis RUN

Reconstructions of the test split are compared with the sounds by their spectrograms: spectral convergence, and the
log-spectral distance in decibels. Their transform is none of those in the objective of the zoo's models. Griffin-Lim
starts from true magnitudes, and from a mel spectrogram. The last column is the speed on one core of the processor.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.core import registry
from zoo.data.loader import make_generator
from zoo.evaluation.evaluate import read_run
from zoo.metrics.spectral_convergence import log_spectral_distance, spectral_convergence
from zoo.nn.blocks.spectral import griffin_lim, log_mel, magnitudes_of_mel, stft

N_FFT, HOP, BANDS, ITERATIONS = 256, 64, 40, 64  # of Griffin-Lim
JUDGE = (400, 100)  # window and hop of the comparison


def from_magnitudes(x: Tensor) -> Tensor:
    """Sounds (B, C, N) by Griffin-Lim from their magnitudes."""
    return griffin_lim(stft(x, N_FFT, HOP).abs(), N_FFT, HOP, x.shape[-1], ITERATIONS)


def from_mel(x: Tensor, sample_rate: int) -> Tensor:
    """Sounds (B, C, N) by Griffin-Lim from their mel spectrograms."""
    mel = log_mel(x, sample_rate, N_FFT, HOP, BANDS)
    return griffin_lim(magnitudes_of_mel(mel, sample_rate, N_FFT), N_FFT, HOP, x.shape[-1], ITERATIONS)


def compare(x: Tensor, ways: dict[str, Callable[[Tensor], Tensor]], sample_rate: int) -> dict[str, dict[str, float]]:
    """Scores of each way to make sounds (B, C, N) again."""
    scores, spectrum = {}, stft(x, *JUDGE).abs()
    for name, way in ways.items():
        start = time.perf_counter()
        found = way(x)
        seconds = time.perf_counter() - start
        other = stft(found, *JUDGE).abs()
        scores[name] = {
            "convergence": float(spectral_convergence(spectrum, other).mean()),
            "decibels": float(log_spectral_distance(spectrum, other).mean()),
            "times_real": x.shape[0] * x.shape[-1] / sample_rate / seconds,
        }
    return scores


def main(run: str) -> None:
    """Print a table."""
    torch.set_num_threads(1)
    _, model, settings, _ = read_run(Path(run), {})
    judged: Any = model.eval()
    data: Any = registry.build("data", settings, where="data")
    data.setup()
    x, labels = data.fetch(data.test, torch.arange(len(data.test[0])), make_generator(0), train=False)
    rate = judged.spec.x.sample_rate
    ways = {
        "the sounds": lambda x: x,
        str(judged.display_name): lambda x: judged.reconstruct(x),
        "Griffin-Lim, magnitudes": from_magnitudes,
        "Griffin-Lim, mel": lambda x: from_mel(x, rate),
    }
    for label in [None, *labels.unique().tolist()]:
        some = x if label is None else x[labels == label]
        print("all" if label is None else f"class {label}")
        for name, row in compare(some, ways, rate).items():
            print(f"  {name:26} {row['convergence']:.3f} {row['decibels']:6.2f} dB {row['times_real']:8.0f} x")


if __name__ == "__main__":
    main(sys.argv[1])
