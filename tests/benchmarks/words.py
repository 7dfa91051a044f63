"""Compare with gensim, hmmlearn and NLTK: `python -m tests.benchmarks.words [skip_gram|similarity|hmm|ibm1 ...]`.

Each comparison prints a row. Both sides run in turn on the same data, on one thread, in processor time. A ratio is the
median of three rounds, after one that warms up; of one round for NLTK.
"""

import itertools
import logging
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

import zoo
from zoo.core.cache import data_root
from zoo.core.spaces import ABSENT, Tokens
from zoo.data.batch import Batch
from zoo.data.text.stdlib import Pydoc
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.word_level import WordLevel
from zoo.evaluation.suites.words import judge
from zoo.models.embedding.word2vec import Word2Vec
from zoo.nn.distributions.hidden_markov import Categorical, GaussianMixtures, HiddenMarkov, everywhere
from zoo.nn.translation.word_aligner import WordAligner

T, ROWS, ROUNDS, EPOCHS, RATE, PAIRS = 512, 32, 3, 10, 0.025, 5000
Run = Callable[[], Any]


def seconds(run: Run, clock: Callable[[], float]) -> float:
    """Time of one call."""
    before = clock()
    run()
    return clock() - before


def ratio(ours: Run, theirs: Run, rounds: int = ROUNDS, clock: Callable[[], float] = time.process_time) -> float:
    """Their time over our time, the median of alternating rounds; a first round warms up, if there are several."""
    warm = int(rounds > 1)
    ours()
    times = [(seconds(ours, clock), seconds(theirs, clock)) for _ in range(rounds + warm)][warm:]
    mine, other = (statistics.median(part) for part in zip(*times, strict=True))
    found = statistics.median(b / a for a, b in times)
    print(f"{mine:.3f} s, other {other:.3f} s: {found:.1f} times as fast", flush=True)
    return found


def skip_gram(threads: int = 1, texts: list[str] | None = None) -> tuple[Run, Run, Any, Any]:
    """One epoch of skip-gram with five negatives, 100 dimensions and window 5, on the same words; and both models.

    The texts are by default Python's documentation.
    """
    import gensim.models

    texts = Pydoc().read()[0] if texts is None else texts
    words = WordLevel().fit(texts)
    ids = [words.encode(text) for text in texts]
    stream = torch.tensor([i for text in ids for i in [*text, words.end]])
    stream = stream[: len(stream) // T * T].view(-1, T)
    model = Word2Vec(zoo.DataSpec(Tokens(T, words.vocab_size, dumps(words))))
    model.counts.copy_(torch.bincount(stream[model.is_word[stream]], minlength=words.vocab_size))
    spelled = [[words.words[i] for i in text if i != words.unknown] for text in ids]
    spelled = [text[i : i + 10_000] for text in spelled for i in range(0, len(text), 10_000)]  # gensim cuts there
    peer = gensim.models.Word2Vec(
        vector_size=100, window=5, sg=1, negative=5, sample=1e-3, min_count=1, workers=threads
    )
    peer.build_vocab(spelled)

    @torch.no_grad()
    def ours(first: float = RATE, last: float = RATE) -> None:
        parts = stream.split(ROWS)
        for number, rows in enumerate(parts):
            model.train_on(Batch(rows, rows), first + (last - first) * number / len(parts))

    def theirs(first: float = RATE, last: float = 1e-4) -> None:
        peer.train(spelled, total_examples=len(spelled), epochs=1, start_alpha=first, end_alpha=last)

    return ours, theirs, model, peer


def similarity() -> None:
    """Print Spearman's correlation with people's judgements after equal training: texts and sets of gensim's package.

    The texts are 300 pieces of news, which have few of the words. So the standard errors are large.
    """
    import gensim.test.utils

    torch.manual_seed(0)
    news = Path(gensim.test.utils.datapath("lee_background.cor")).read_text(encoding="utf-8").splitlines()
    ours, theirs, model, peer = skip_gram(texts=news)
    rates = torch.linspace(RATE, 1e-4, EPOCHS + 1).tolist()
    for first, last in itertools.pairwise(rates):
        ours(first, last)  # type: ignore[call-arg]
        theirs(first, last)  # type: ignore[call-arg]
    for name in ("wordsim353.tsv", "simlex999.txt"):
        path = Path(gensim.test.utils.datapath(name))
        for who, table, words in (
            ("zoo", model.word_vectors(), model.words),
            ("gensim", torch.tensor(peer.wv.vectors), peer.wv.index_to_key),
        ):
            _, found = judge(path, table, {word: i for i, word in enumerate(words)})
            print(
                f"{name} {who}: {found.value:.3f} ± {found.error:.3f}, {found.known} of {found.total} pairs", flush=True
            )


def baum_welch(kind: str) -> tuple[Run, Run]:
    """Two steps on 1,000 sequences of 60 frames, with eight states, from equal parameters."""
    from hmmlearn import hmm

    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    torch.manual_seed(0)
    x = torch.randn(1000, 60, 13).double() if kind == "gaussian" else torch.randint(30, (1000, 60))
    emission: Any = GaussianMixtures(8, 1, 13, 1e-3) if kind == "gaussian" else Categorical(8, 30)
    model, mask = HiddenMarkov(emission, 8), everywhere(x)
    model.start(x, mask, torch.Generator().manual_seed(0))
    shared = {"n_iter": 2, "tol": -1e9, "init_params": ""}  # no clusters of frames first
    if kind == "gaussian":
        frames, peer = x.flatten(0, 1).numpy(), hmm.GaussianHMM(8, **shared)
        peer.means_, peer.covars_ = emission.means[:, 0].numpy(), emission.variances[:, 0].numpy()
    else:
        frames, peer = x.flatten()[:, None].numpy(), hmm.CategoricalHMM(8, **shared)
        peer.emissionprob_ = emission.log_probs.exp().numpy()
    peer.startprob_, peer.transmat_ = model.log_start.exp().numpy(), model.log_transition.exp().numpy()

    def ours() -> None:
        for _ in range(2):
            model.step(x, mask)

    return ours, lambda: peer.fit(frames, [60] * 1000)


def ibm1(n: int = PAIRS) -> tuple[Run, Run]:
    """Five steps of EM for IBM model 1 on the first n pairs of Multi30k, German to English, words in small letters."""
    from nltk.translate import AlignedSent
    from nltk.translate import ibm1 as peer

    number: dict[str, int] = {}
    texts = [
        (data_root(None) / "multi30k" / f"train.{side}").read_text(encoding="utf-8").lower().splitlines()[:n]
        for side in ("de", "en")
    ]
    x, y = ([[number.setdefault(word, len(number)) for word in line.split()] for line in side] for side in texts)
    padded = [pad_sequence([torch.tensor(r) for r in side], batch_first=True, padding_value=ABSENT) for side in (x, y)]
    pairs = [AlignedSent(b, a) for a, b in zip(x, y, strict=True)]
    return lambda: WordAligner(len(number), "ibm1").fit(*padded, 5), lambda: peer.IBMModel1(pairs, 5)


def main() -> None:
    """Print the rows that are named, or all of them."""
    torch.set_num_threads(1)
    for name in sys.argv[1:] or ("skip_gram", "similarity", "hmm", "ibm1"):
        if name == "similarity":
            similarity()
        elif name == "skip_gram":
            print("skip-gram, gensim, one thread: ", end="")
            ratio(*skip_gram()[:2])
        elif name == "hmm":
            for kind in ("gaussian", "categorical"):
                print(f"Baum-Welch, hmmlearn, {kind}: ", end="")
                ratio(*baum_welch(kind))
        else:
            print(f"IBM model 1, NLTK, {PAIRS:,} pairs: ", end="")
            ratio(*ibm1(), rounds=1)


if __name__ == "__main__":
    main()
