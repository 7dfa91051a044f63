"""Word alignment models: IBM model 1, IBM model 2, and the hidden Markov model."""

import torch

from zoo.core.registry import register
from zoo.core.signature import Fraction, PositiveInt
from zoo.core.spec import DataSpec
from zoo.models.translation.base import TranslationModel
from zoo.nn.translation.word_aligner import AlignmentKind


@register("model", "word_alignment")
class WordAlignment(TranslationModel):
    """Word alignment: IBM models 1 and 2 (Brown et al. 1993), or a hidden Markov model (Vogel et al. 1996), by EM.

    A prompt of `generate` is a source. Its translation is word by word: each source token gives its most likely target
    token, in the order of the source. Options of sampling have no effect. `sample` draws targets of an empty source.
    `attention` is the posterior probability of each link. Sources are read without upper case. Before fitting, all
    tokens are equally likely.

    Args:
        spec: what the data looks like.
        alignment: ibm1 (all positions alike), ibm2 (absolute positions) or hmm (jumps).
        iterations: of EM for IBM model 1, and then for the other.
        null_prob: probability of a target token without a source token, of hmm.
        max_pairs: most training pairs; a random subset of larger data.
    """

    paper = "Brown et al. 1993 (Computational Linguistics 19); Vogel, Ney & Tillmann 1996 (COLING)"

    def __init__(
        self,
        spec: DataSpec,
        *,
        alignment: AlignmentKind = "hmm",
        iterations: PositiveInt = 5,
        null_prob: Fraction = 0.2,
        max_pairs: PositiveInt = 200_000,
    ) -> None:
        super().__init__(spec)
        self.net = self.build_aligner(alignment)

    def translate(self, sources: list[list[int]]) -> list[list[int]]:
        """The most likely target token of each source token."""
        written = []
        for source in sources:
            x = self.fold(torch.tensor([source], dtype=torch.int64, device=self.device).view(1, -1))[0]
            rows = self.net.row(x)
            rows[:, self.ends] = 0
            written.append(rows.argmax(1).tolist())
        return written
