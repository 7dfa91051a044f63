"""TF-IDF: bags of words or of word n-grams, and their latent semantic analysis."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import ABSENT, Tokens
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import loads
from zoo.models.abilities import require_tokenizer
from zoo.models.baselines.base import Fitted
from zoo.models.masked.base import strip_padding


@register("model", "tfidf")
class TfIdf(Fitted):
    """Vectors of texts from the words that they contain: TF-IDF, projected by latent semantic analysis.

    A text is a bag of words, or of n-grams of up to `max_ngram` words. Their counts are weighted by the rarity of the
    n-gram and scaled to length one. The projection is a truncated singular value decomposition of the training texts.
    A training text is what lies between two ends in a window. scikit-learn computes both.

    `loss` is the mean squared error of the projection of a text, 0 to 1. Before fitting there are no n-grams.

    Args:
        spec: what the data looks like.
        dim: of the vectors; fewer for small data.
        max_ngram: most words in an n-gram.
        max_features: n-grams; the most frequent ones.
        idf: weight n-grams by their rarity; false for plain counts.
        seed: of the randomised decomposition.
    """

    paper = "Sparck Jones 1972 (J. Documentation 28); Deerwester et al. 1990 (latent semantic analysis, JASIS 41)"
    accepts = (Tokens,)
    fit_on = 1_000_000_000  # windows, so all
    grams: Tensor  # token ids of each n-gram, -1 after its end, int64 (F, max_ngram)
    weights: Tensor  # of each n-gram, (F,)
    components: Tensor  # of the projection, (dim, F)

    def __init__(
        self,
        spec: DataSpec,
        *,
        dim: PositiveInt = 100,
        max_ngram: PositiveInt = 1,
        max_features: PositiveInt = 20_000,
        idf: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(spec)
        text = spec.tokens
        self.tokenizer: Any = loads(text.tokenizer, text.vocab_size) if text.tokenizer else None
        if self.tokenizer is None:
            self.lacks("embed")
        self.dim, self.max_ngram, self.max_features, self.idf, self.seed = dim, max_ngram, max_features, idf, seed
        self.register_buffer("grams", torch.empty(0, max_ngram, dtype=torch.int64))
        self.register_buffer("weights", torch.empty(0))
        self.register_buffer("components", torch.empty(0, 0))

    # -- bags --------------------------------------------------------------------------------------------------

    def ngrams(self, text: Sequence[int]) -> list[tuple[int, ...]]:
        """All n-grams of the token ids of a text."""
        return [tuple(text[i : i + n]) for n in range(1, self.max_ngram + 1) for i in range(len(text) - n + 1)]

    def documents(self, rows: Tensor) -> list[list[int]]:
        """Texts in windows (N, T): what lies between two ends, without unknown words and padding."""
        known = self.tokenizer
        ends, left_out = ([], ()) if known is None else ({*known.ends, known.begin}, (known.unknown,))
        found = []
        for row in rows.tolist():
            for is_end, part in itertools.groupby(row, lambda token: token in ends or token < 0):
                words = [token for token in part if token not in left_out]
                if words and not is_end:
                    found.append(words)
        return found

    def bags(self, texts: Sequence[Sequence[int]]) -> Any:
        """Weighted n-grams of token ids, rows of length one: a sparse matrix (N, F)."""
        from scipy.sparse import csr_matrix
        from sklearn.feature_extraction.text import CountVectorizer
        from sklearn.preprocessing import normalize

        if not len(self.grams):
            return csr_matrix((len(texts), 0))
        vocabulary = {tuple(i for i in gram if i >= 0): n for n, gram in enumerate(self.grams.tolist())}
        counts = CountVectorizer(analyzer=self.ngrams, vocabulary=vocabulary).transform(texts)
        return normalize(counts.multiply(self.weights.double().cpu().numpy()).tocsr())

    def project(self, bags: Any) -> Tensor:
        """Vectors (N, dim) of bags (N, F)."""
        return torch.from_numpy(np.asarray(bags @ self.components.double().cpu().numpy().T)).float().to(self.device)

    # -- fitting -----------------------------------------------------------------------------------------------

    def statistics(self, batch: Batch) -> Tensor:
        """Tokens of windows, negative for padding, int32 (B, T)."""
        return (strip_padding(batch) if batch.y.ndim == 2 else batch.x).int()

    def fit(self, data: Tensor) -> None:
        """Choose n-grams, weigh them, and decompose the texts in windows (N, T)."""
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer

        texts = self.documents(data)
        vectorizer = CountVectorizer(analyzer=self.ngrams, max_features=self.max_features)
        counts = vectorizer.fit_transform(texts)
        listed = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.__getitem__)
        padded = [[*gram, *[ABSENT] * (self.max_ngram - len(gram))] for gram in listed]
        self.grams = torch.tensor(padded, device=self.device)
        ones = np.ones(len(listed))
        weights = TfidfTransformer().fit(counts).idf_ if self.idf else ones
        self.weights = torch.tensor(weights, dtype=torch.float32, device=self.device)
        dim = min(self.dim, len(listed), len(texts))
        found = TruncatedSVD(dim, random_state=self.seed).fit(self.bags(texts)).components_
        self.components = torch.tensor(found, dtype=torch.float32, device=self.device)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Mean over texts of the squared length that the projection loses, relative to that of the text."""
        vectors = self.project(self.bags(self.documents(self.statistics(batch))))  # (N, dim)
        return {"loss": 1 - vectors.square().sum(1).mean() if len(vectors) else vectors.new_ones(())}

    # -- texts -------------------------------------------------------------------------------------------------

    def embed(self, items: str | list[str]) -> Tensor:
        """Texts -> vectors (N, dim); zeros for a text without a known word."""
        texts = [items] if isinstance(items, str) else items
        return self.project(self.bags([require_tokenizer(self).encode(text) for text in texts]))
