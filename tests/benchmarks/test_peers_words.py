"""Speed beside gensim, hmmlearn and NLTK: `pytest -m slow -s tests/benchmarks/test_peers_words.py`."""

import time

import pytest
import torch

from tests.benchmarks.words import baum_welch, ibm1, ratio, skip_gram
from zoo.core.cache import data_root


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_skip_gram_is_as_fast_as_gensim(threads: int) -> None:
    pytest.importorskip("gensim.models")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert ratio(*skip_gram(threads)[:2], clock=time.perf_counter) >= 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_baum_welch_is_as_fast_as_hmmlearn(kind: str) -> None:
    pytest.importorskip("hmmlearn.hmm")
    assert ratio(*baum_welch(kind)) >= 1


@pytest.mark.slow
def test_ibm1_is_many_times_as_fast_as_nltk() -> None:
    pytest.importorskip("nltk.translate.ibm1")
    if not (data_root(None) / "multi30k").is_dir():
        pytest.skip("no Multi30k in $ZOO_DATA")
    assert ratio(*ibm1(), rounds=1) >= 25
