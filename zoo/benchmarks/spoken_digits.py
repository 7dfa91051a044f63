"""Recognition of isolated spoken digits: one hidden Markov model for each word, or a neural network.

    python -m zoo.benchmarks.spoken_digits free-spoken-digits.zip
    python -m zoo.benchmarks.spoken_digits free-spoken-digits.zip --official
    python -m zoo.benchmarks.spoken_digits free-spoken-digits.zip --neural

Each speaker is left out in turn. With `--official`, takes 0 to 4 of all speakers are. A hidden Markov model has
left-to-right states with Gaussian mixtures over cepstral coefficients. It is fitted to the recordings of one word. A
recording is the word whose model gives it the largest likelihood. The network is the one in whose features sounds are
evaluated (`zoo.evaluation.features.classifier`), and reads bands of the mel scale.
"""

import argparse
import io
import wave
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from zoo.data.audio.spoken_digits import SPEAKERS, Speaker, SpokenDigits
from zoo.evaluation.features import classifier
from zoo.nn.blocks.mfcc import mfcc
from zoo.nn.distributions.hidden_markov import GaussianMixtures, HiddenMarkov


@dataclass(frozen=True)
class Recording:
    """One word.

    Args:
        word: its label.
        speaker: who says it.
        number: of the take.
        frames: cepstral coefficients, (T, D).
    """

    word: int
    speaker: str
    number: int
    frames: Tensor


def read_recordings(path: Path, numbers: Sequence[int] = range(50)) -> list[Recording]:
    """Read the Free Spoken Digit Dataset: files DIGIT_SPEAKER_NUMBER.wav in a ZIP archive.

    Args:
        path: the archive.
        numbers: takes of each digit by each speaker.
    """
    found = []
    with zipfile.ZipFile(path) as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".wav")):
            word, speaker, number = Path(name).stem.split("_")
            if int(number) in numbers:
                with wave.open(io.BytesIO(archive.read(name))) as file:
                    raw, rate = file.readframes(file.getnframes()), file.getframerate()
                samples = torch.frombuffer(bytearray(raw), dtype=torch.int16) / 2**15
                found.append(Recording(int(word), speaker, int(number), mfcc(samples, rate)))
    return found


def padded(recordings: Sequence[Recording]) -> tuple[Tensor, Tensor]:
    """Frames (N, T, D), and which are real, bool (N, T)."""
    lengths = torch.tensor([len(r.frames) for r in recordings])
    x = pad_sequence([r.frames for r in recordings], batch_first=True)
    return x, torch.arange(x.shape[1]) < lengths[:, None]


def fit_words(
    recordings: Sequence[Recording], *, n_states: int, n_components: int, min_variance: float, iterations: int = 20
) -> dict[int, HiddenMarkov]:
    """A left-to-right model for each word."""
    models = {}
    for word in sorted({r.word for r in recordings}):
        x, mask = padded([r for r in recordings if r.word == word])
        emission = GaussianMixtures(n_states, n_components, x.shape[2], min_variance)
        models[word] = HiddenMarkov(emission, n_states, left_right=True)
        models[word].fit(x, mask, iterations=iterations)
    return models


def recognise(models: dict[int, HiddenMarkov], recordings: Sequence[Recording]) -> Tensor:
    """The likeliest word of each recording, int64 (N,)."""
    x, mask = padded(recordings)
    scores = torch.stack([model.log_prob(x, mask) for model in models.values()])  # (words, N)
    return torch.tensor(list(models))[scores.argmax(0)]


def leave_one_speaker_out(
    recordings: Sequence[Recording], *, n_states: int = 8, n_components: int = 3, min_variance: float = 0.1
) -> dict[str, float]:
    """Accuracy on each speaker, by models of the others."""
    accuracy = {}
    for speaker in sorted({r.speaker for r in recordings}):
        own = [r for r in recordings if r.speaker == speaker]
        others = [r for r in recordings if r.speaker != speaker]
        models = fit_words(others, n_states=n_states, n_components=n_components, min_variance=min_variance)
        right = recognise(models, own) == torch.tensor([r.word for r in own])
        accuracy[speaker] = float(right.double().mean())
    return accuracy


def official(
    recordings: Sequence[Recording], *, n_states: int = 8, n_components: int = 3, min_variance: float = 0.1
) -> float:
    """Accuracy on the takes 0 to 4, by models of the others."""
    own, others = ([r for r in recordings if (r.number < 5) == held] for held in (True, False))
    models = fit_words(others, n_states=n_states, n_components=n_components, min_variance=min_variance)
    return float((recognise(models, own) == torch.tensor([r.word for r in own])).double().mean())


def neural(path: Path, unseen: Speaker | None = None, *, steps: int = 1000) -> float:
    """Accuracy of a network on the test split.

    Args:
        path: folder of the archive.
        unseen: the speaker of the test split; None is the official split.
        steps: batches of 128.
    """
    data = SpokenDigits(path=str(path), unseen=unseen)
    data.setup()
    recipe = replace(classifier.recipe_for(data.spec, len(data.train[0])), steps=steps)
    network = classifier.train(data, recipe)
    with torch.no_grad():
        right = [network(x).argmax(1) == y for x, y in data.test_dataloader()]
    return float(torch.cat(right).double().mean())


def main() -> None:
    """Print accuracies."""
    parser = argparse.ArgumentParser(description="Recognition of isolated spoken digits.")
    parser.add_argument("archive", type=Path)
    parser.add_argument("--neural", action="store_true", help="by a network in place of hidden Markov models")
    parser.add_argument("--official", action="store_true", help="takes 0 to 4 of all speakers are tested")
    given = parser.parse_args()
    if given.official:
        found = neural(given.archive.parent) if given.neural else official(read_recordings(given.archive))
        print(f"{'official':10} {found:.3f}")
        return
    if given.neural:
        shares = {speaker: neural(given.archive.parent, speaker) for speaker in SPEAKERS}
    else:
        shares = leave_one_speaker_out(read_recordings(given.archive))
    for speaker, share in shares.items():
        print(f"{speaker:10} {share:.3f}")
    print(f"{'mean':10} {sum(shares.values()) / len(shares):.3f}")


if __name__ == "__main__":
    main()
