"""VQA: answers to questions about a picture."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.core.errors import ConfigError, DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Image, Questions
from zoo.core.spec import DataSpec
from zoo.data.batch import Batch
from zoo.data.text.tokenizers.base import encode_texts, loads
from zoo.models.base import Model
from zoo.nn.networks.question_answering import PictureQuestions
from zoo.nn.optim.components import Optimizer


@register("model", "vqa")
class VisualQuestionAnswering(Model):
    """Answers of one token to questions about pictures, by image encoder and question encoder (Antol et al. 2015).

    A picture is read once for all its questions; see `zoo.nn.networks.question_answering.PictureQuestions`. The vector
    of a question is the sum of its words' vectors (Zhou et al. 2015): their order is not read. `loss` is in nats per
    answer. For data with class labels, the label answers one question, which is the same for all pictures, and the
    model is a classifier.

    Args:
        spec: images with questions, or with class labels.
        width: feature maps of the first convolution.
        cell_side: the picture is halved until its shorter side has at most so many cells.
        d_model: width of a cell, a multiple of n_heads.
        n_layers: transformer blocks over the cells.
        n_heads: attention heads.
        n_features: features of a picture that a question chooses from.
        optimizer: with its learning rate and schedule.

    Raises:
        DataError: images without questions and labels.
    """

    paper = (
        "Antol et al. 2015 (arXiv:1505.00468); Zhou et al. 2015 (arXiv:1512.02167); Kim et al. 2017 (arXiv:1610.04325)"
    )
    accepts = (Image,)

    def __init__(
        self,
        spec: DataSpec,
        *,
        width: PositiveInt = 32,
        cell_side: PositiveInt = 8,
        d_model: PositiveInt = 64,
        n_layers: PositiveInt = 2,
        n_heads: PositiveInt = 4,
        n_features: PositiveInt = 512,
        optimizer: Optimizer = "adamw",
    ) -> None:
        super().__init__(spec)
        asked = spec.condition
        if not isinstance(asked, Questions) and not spec.n_classes:
            raise DataError(f"model=vqa: {spec} has no questions. Choose data with questions, as data=sort_of_clevr.")
        self.tokenizer: Any = None
        if isinstance(asked, Questions):
            self.length, n_tokens, n_answers = asked.text.length, asked.text.vocab_size, asked.text.vocab_size
            self.tokenizer = loads(asked.text.tokenizer, n_tokens) if asked.text.tokenizer else None
        else:
            self.length, n_tokens, n_answers = 1, 1, spec.n_classes
        if self.tokenizer is None:
            self.lacks("answer")
        self.words = nn.Embedding(n_tokens, d_model)
        self.net = PictureQuestions(
            spec.shape, d_model, n_answers, width=width, cell_side=cell_side, d_model=d_model,
            n_layers=n_layers, n_heads=n_heads, n_features=n_features,
        )  # fmt: skip

    # -- likelihood ------------------------------------------------------------------------------------------

    def questions_of(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Questions with answers (B, Q, T + 1), or labels (B,) -> questions (B, Q, T), and answers (B, Q)."""
        if y.ndim == 1:
            return torch.zeros_like(y)[:, None, None], y[:, None]
        return y[..., :-1], y[..., -1]

    def question_vectors(self, questions: Tensor) -> Tensor:
        """Tokens (B, Q, T), negative for padding -> vectors (B, Q, d), sums over words."""
        return (self.words(questions.clamp(min=0)) * (questions >= 0)[..., None]).sum(2)

    def answer_log_probs(self, x: Tensor, questions: Tensor) -> Tensor:
        """Log-probabilities (B, Q, V) of all answers to questions (B, Q, T) about pictures (B, *shape)."""
        logits: Tensor = self.net(x, self.question_vectors(questions))
        return logits.float().log_softmax(2)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Nats per answer, and the share of right answers."""
        questions, answers = self.questions_of(batch.y)
        found = self.answer_log_probs(batch.x, questions)
        right = (found.argmax(2) == answers).float().mean()
        return {"loss": F.nll_loss(found.flatten(0, 1), answers.flatten()), "answer_right": right}

    # -- answers ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def answer_tokens(self, x: Tensor, questions: Tensor) -> Tensor:
        """The likeliest answers, tokens (B, Q), to questions (B, Q, T) about pictures (B, *shape)."""
        training = self.training
        self.eval()
        try:
            return self.answer_log_probs(x.to(self.device), questions.to(self.device)).argmax(2)
        finally:
            self.train(training)

    def answer(self, x: Tensor, questions: list[str]) -> list[list[str]]:
        """The likeliest answer to each question about each picture (B, *shape): a list for each picture.

        Raises:
            ConfigError: a question without words.
            DataError: a question that is too long.
        """
        if blank := [question for question in questions if not question.strip()]:
            raise ConfigError(f"question={blank[0]!r}: empty. Ask with words.")
        if not len(x) or not questions:
            return [[] for _ in range(len(x))]
        rows = encode_texts(self.tokenizer, questions, self.length)  # (Q, T)
        found = self.answer_tokens(x, rows.expand(len(x), -1, -1))
        return [[self.tokenizer.decode([token]).strip() for token in row] for row in found.tolist()]

    # -- dashboards ------------------------------------------------------------------------------------------

    def charts(self) -> dict[str, list[str]]:
        """Loss, and answers that are right."""
        return {"loss": ["train/loss", "val/loss"], "answers right": ["train/answer_right", "val/answer_right"]}

    def hidden_layers(self) -> list[nn.Module]:
        """Layers between the words or pixels and the answers."""
        return [self.net.convolutions[3:], self.net.cells.blocks, self.net.picture_head]
