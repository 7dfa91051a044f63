"""Speed beside gensim and hmmlearn, in alternating rounds: `pytest -m slow -s tests/benchmarks/test_peers_words.py`."""

import logging
import statistics
import time
from collections.abc import Callable

import pytest
import torch

import zoo
from zoo.core.spaces import Tokens
from zoo.data.batch import Batch
from zoo.data.text.stdlib import Pydoc
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.word_level import WordLevel
from zoo.models.embedding.word2vec import Word2Vec
from zoo.nn.distributions.hidden_markov import Categorical, GaussianMixtures, HiddenMarkov, everywhere

T, ROWS, ROUNDS = 512, 32, 3


def ratio(ours: Callable[[], None], theirs: Callable[[], None]) -> float:
    """Their time over our time, the median of alternating rounds; the first round warms up."""
    found = []
    for _ in range(ROUNDS + 1):
        times = []
        for run in (ours, theirs):
            before = time.perf_counter()
            run()
            times.append(time.perf_counter() - before)
        found.append(times[1] / times[0])
    print(f"\n{statistics.median(found[1:]):.2f} times as fast: {[round(x, 2) for x in found]}")
    return statistics.median(found[1:])


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_skip_gram_is_as_fast_as_gensim(threads: int) -> None:
    """One epoch of skip-gram with five negatives, 100 dimensions and window 5, on the same words."""
    gensim = pytest.importorskip("gensim.models")
    texts = Pydoc().read()[0]
    words = WordLevel().fit(texts)
    ids = [words.encode(text) for text in texts]
    stream = torch.tensor([i for text in ids for i in [*text, words.end]])
    stream = stream[: len(stream) // T * T].view(-1, T)
    model = Word2Vec(zoo.DataSpec(Tokens(T, words.vocab_size, dumps(words))))
    model.counts.copy_(torch.bincount(stream[model.is_word[stream]], minlength=words.vocab_size))

    @torch.no_grad()
    def ours() -> None:
        for rows in stream.split(ROWS):
            model.train_on(Batch(rows, rows), 0.025)

    spelled = [[words.words[i] for i in text if i != words.unknown] for text in ids]
    spelled = [text[i : i + 10_000] for text in spelled for i in range(0, len(text), 10_000)]  # gensim cuts there
    peer = gensim.Word2Vec(vector_size=100, window=5, sg=1, negative=5, sample=1e-3, min_count=1, workers=threads)
    peer.build_vocab(spelled)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert ratio(ours, lambda: peer.train(spelled, total_examples=len(spelled), epochs=1)) >= 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_baum_welch_is_as_fast_as_hmmlearn(kind: str) -> None:
    """Two steps on 1,000 sequences of 60 frames, with eight states, from equal parameters."""
    hmmlearn = pytest.importorskip("hmmlearn.hmm")
    logging.getLogger("hmmlearn").setLevel(logging.ERROR)
    torch.manual_seed(0)
    x = torch.randn(1000, 60, 13).double() if kind == "gaussian" else torch.randint(30, (1000, 60))
    emission = GaussianMixtures(8, 1, 13, 1e-3) if kind == "gaussian" else Categorical(8, 30)
    model = HiddenMarkov(emission, 8)
    mask = everywhere(x)
    model.start(x, mask, torch.Generator().manual_seed(0))
    shared = {"n_iter": 2, "tol": -1e9, "init_params": ""}  # no clusters of frames first
    if kind == "gaussian":
        frames, peer = x.flatten(0, 1).numpy(), hmmlearn.GaussianHMM(8, **shared)
        peer.means_, peer.covars_ = emission.means[:, 0].numpy(), emission.variances[:, 0].numpy()
    else:
        frames, peer = x.flatten()[:, None].numpy(), hmmlearn.CategoricalHMM(8, **shared)
        peer.emissionprob_ = emission.log_probs.exp().numpy()
    peer.startprob_, peer.transmat_ = model.log_start.exp().numpy(), model.log_transition.exp().numpy()

    def ours() -> None:
        for _ in range(2):
            model.step(x, mask)

    assert ratio(ours, lambda: peer.fit(frames, [60] * 1000)) >= 1
