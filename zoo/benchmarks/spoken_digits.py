"""Recognition of isolated spoken digits: one hidden Markov model for each word, or a neural network.

    python -m zoo.benchmarks.spoken_digits free-spoken-digits.zip
    python -m zoo.benchmarks.spoken_digits free-spoken-digits.zip --official
    python -m zoo.benchmarks.spoken_digits free-spoken-digits.zip --neural --speakers george,theo

Each speaker is left out in turn. With `--official`, takes 0 to 4 of all speakers are. A hidden Markov model has
left-to-right states with Gaussian mixtures over cepstral coefficients. It is fitted to the recordings of one word, and
to copies with other lengths of the vocal tract. A recording is the word whose model gives it the largest likelihood.
The network reads bands of the mel scale, and is trained on random changes (`zoo.nn.augmentations.speech`).

For comparison, `--plain` has hidden Markov models without copies, of coefficients of which only the mean is removed;
`--classifier` is the network in whose features sounds are evaluated (`zoo.evaluation.features.classifier`).
"""

import argparse
import io
import wave
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from zoo.benchmarks.word_network import recognise_by_network, train_network
from zoo.core.errors import ConfigError, DataError, ZooError
from zoo.data.audio.spoken_digits import RATE, SPEAKERS, Speaker, SpokenDigits
from zoo.evaluation.features import classifier
from zoo.nn.blocks.mfcc import mfcc, power_spectra, robust_mfcc, trimmed
from zoo.nn.distributions.hidden_markov import GaussianMixtures, HiddenMarkov

DECIBELS = 30.0  # below the loudest frame: quieter ends are cut, and bands have a floor there
WARPS = (0.9, 1.0, 1.1)  # lengths of the vocal tract


@dataclass(frozen=True)
class Recording:
    """One word.

    Args:
        word: its label.
        speaker: who says it.
        number: of the take.
        frames: cepstral coefficients, (T, D).
        power: spectra without the quiet ends, (T', F).
    """

    word: int
    speaker: str
    number: int
    frames: Tensor
    power: Tensor

    def warped(self, warp: float) -> "Recording":
        """The recording with frequencies of another length of the vocal tract."""
        return replace(self, frames=robust_mfcc(self.power, RATE, warp=warp, decibels=DECIBELS))


def read_recordings(path: Path, numbers: Sequence[int] = range(50), *, plain: bool = False) -> list[Recording]:
    """Read the Free Spoken Digit Dataset: files DIGIT_SPEAKER_NUMBER.wav in a ZIP archive.

    Args:
        path: the archive.
        numbers: takes of each digit by each speaker.
        plain: coefficients of the whole recording, of which only the mean is removed.

    Raises:
        DataError: no such file, or other contents.
    """
    if not path.is_file():
        raise DataError(f"archive={path}: no such file. Save {SpokenDigits.SOURCE} there.")
    try:
        found = list(recordings_of(path, numbers, plain))
    except (ValueError, RuntimeError, EOFError, zipfile.BadZipFile, wave.Error, zlib.error) as error:
        raise DataError(f"archive={path}: not the spoken digits ({error}). Save {SpokenDigits.SOURCE} there.") from None
    if not found:
        raise DataError(f"archive={path}: has no recordings. Save {SpokenDigits.SOURCE} there.")
    return found


def recordings_of(path: Path, numbers: Sequence[int], plain: bool) -> Iterator[Recording]:
    """Recordings of an archive; see `read_recordings`."""
    with zipfile.ZipFile(path) as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".wav")):
            word, speaker, number = Path(name).stem.split("_")
            if int(number) in numbers:
                with wave.open(io.BytesIO(archive.read(name))) as file:
                    raw = file.readframes(file.getnframes())
                samples = torch.frombuffer(bytearray(raw), dtype=torch.int16) / 2**15
                power = trimmed(power_spectra(samples - samples.mean(), RATE), DECIBELS)
                frames = mfcc(samples, RATE) if plain else robust_mfcc(power, RATE, decibels=DECIBELS)
                yield Recording(int(word), speaker, int(number), frames, power)


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


def share_right(found: Tensor, recordings: Sequence[Recording]) -> float:
    """Share of the recordings (N,) whose word was found."""
    return float((found == torch.tensor([r.word for r in recordings])).double().mean())


def by_markov(train: Sequence[Recording], test: Sequence[Recording], *, plain: bool = False) -> float:
    """Accuracy of hidden Markov models.

    Args:
        train: recordings to fit.
        test: recordings to recognise.
        plain: fit no copies with other lengths of the vocal tract, and fewer components.
    """
    copies = [r if plain else r.warped(warp) for r in train for warp in ((1.0,) if plain else WARPS)]
    models = fit_words(copies, n_states=8, n_components=3 if plain else 6, min_variance=0.1)
    return share_right(recognise(models, test), test)


def by_network(train: Sequence[Recording], test: Sequence[Recording], *, steps: int = 2000, seed: int = 0) -> float:
    """Accuracy of the network after so many batches of 64."""
    words = torch.tensor([r.word for r in train])
    network, bands = train_network([r.power for r in train], words, RATE, steps=steps, seed=seed)
    return share_right(recognise_by_network(network, bands, [r.power for r in test]), test)


def by_classifier(path: Path, unseen: Speaker | None = None, *, steps: int = 1000) -> float:
    """Accuracy on the test split of the network that evaluates sounds.

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
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--neural", action="store_true", help="by a network in place of hidden Markov models")
    kind.add_argument("--plain", action="store_true", help="hidden Markov models of plain coefficients")
    kind.add_argument("--classifier", action="store_true", help="by the classifier that evaluates sounds")
    parser.add_argument("--official", action="store_true", help="takes 0 to 4 of all speakers are tested")
    parser.add_argument("--speakers", default=",".join(SPEAKERS), help="whom to leave out, separated by commas")
    parser.add_argument("--steps", type=int, default=2000, help="batches of the network")
    given = parser.parse_args()
    try:
        report(given)
    except ZooError as error:
        parser.exit(1, f"zoo: {error}\n")


def report(given: argparse.Namespace) -> None:
    """Print the accuracies of the options of the command.

    Raises:
        ConfigError: an unknown speaker, or no steps.
        DataError: no such archive, or other contents.
    """
    speakers = given.speakers.split(",")
    if unknown := [speaker for speaker in speakers if speaker not in SPEAKERS]:
        raise ConfigError(f"--speakers={unknown[0]}: not a speaker. Choose from {', '.join(SPEAKERS)}.")
    if given.steps < 1:
        raise ConfigError(f"--steps={given.steps}: not a number of batches. Give at least 1.")
    recordings = [] if given.classifier else read_recordings(given.archive, plain=given.plain)

    def accuracy(unseen: Speaker | None) -> float:
        if given.classifier:
            return by_classifier(given.archive.parent, unseen)
        held = [r.number < 5 if unseen is None else r.speaker == unseen for r in recordings]
        train, test = ([r for r, own in zip(recordings, held, strict=True) if own == part] for part in (False, True))
        return by_network(train, test, steps=given.steps) if given.neural else by_markov(train, test, plain=given.plain)

    if given.official:
        print(f"{'official':10} {accuracy(None):.3f}")
        return
    shares = []
    for speaker in SPEAKERS:
        if speaker in speakers:
            shares.append(accuracy(speaker))
            print(f"{speaker:10} {shares[-1]:.3f}", flush=True)
    print(f"{'mean':10} {sum(shares) / len(shares):.3f}")


if __name__ == "__main__":
    main()
