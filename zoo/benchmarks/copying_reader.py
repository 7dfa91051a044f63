"""A network that answers a question by one word: of a passage, by copying, or of a list of frequent answers."""

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from zoo.data.text.word_shapes import shape_of, tokenise

LEAST = 5  # a word of fewer training texts is known by its shape only
FREQUENT = 200  # answers that can be given without a passage


@dataclass(frozen=True)
class Example:
    """A question, a passage that may be empty, and the words that answer it."""

    question: str
    passage: str
    answers: frozenset[str]


class ConvBlock(nn.Module):
    """A convolution of width five over the words, beside a shortcut."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.LayerNorm(dim), nn.Conv1d(dim, dim, 5, padding=2)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D); `real` (B, T, 1) is 0 for padding, which has no effect."""
        return x + F.relu(self.conv((self.norm(x) * real).mT).mT)


class CopyingReader(nn.Module):
    """One softmax over places of the passage and over a list of answers (CopyNet, Gu et al. 2016, arXiv:1603.06393).

    The probability of a word is the sum over its places and its entry in the list. So words that training never shows
    can be answered. A place is known by the words around it, by which of them are in the question, and by the question.

    Args:
        words: known words, and shapes of the rest.
        answers: the list.
        dim: width.
        layers: convolutions over the passage.
    """

    def __init__(self, words: Sequence[str], answers: Sequence[str], *, dim: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.number = {word: i for i, word in enumerate(words, 1)}  # 0 is padding
        self.answers = list(answers)
        self.words = nn.Embedding(len(words) + 1, dim, padding_idx=0)
        self.matches = nn.Embedding(2, dim)
        self.question = nn.Linear(dim, dim)
        self.blocks = nn.ModuleList(ConvBlock(dim) for _ in range(layers))
        self.place = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 1))
        self.entries = nn.Linear(dim, len(self.answers))

    @classmethod
    def for_examples(cls, examples: Sequence[Example], **options: int) -> "CopyingReader":
        """A reader with the words, shapes and frequent answers of training examples."""
        texts = Counter(word for e in examples for word in {*tokenise(e.question), *tokenise(e.passage)})
        shapes = {shape_of(word) for word in texts}
        known = sorted({word for word, n in texts.items() if n >= LEAST} | shapes)
        frequent = Counter(answer for e in examples for answer in e.answers).most_common(FREQUENT)
        return cls(known, [answer for answer, _ in frequent], **options)

    def ids(self, words: Sequence[str]) -> Tensor:
        """Numbers of words, or of their shapes; 0 for an unknown shape."""
        return torch.tensor([self.number.get(w, self.number.get(shape_of(w), 0)) for w in words], dtype=torch.int64)

    def log_probs(self, pairs: Sequence[tuple[str, str]]) -> tuple[Tensor, list[list[str]]]:
        """Score the answers of questions with passages.

        Args:
            pairs: B questions and passages.

        Returns:
            Log-probabilities (B, T + K) of T places and K entries, and the words of the passages. T is one more than
            the longest passage has words.
        """
        asked, read = [tokenise(question) for question, _ in pairs], [tokenise(passage) for _, passage in pairs]
        ids = pad_sequence([self.ids(words) for words in asked], batch_first=True)
        mean = self.words(ids).sum(1) / (ids > 0).sum(1, keepdim=True).clamp(min=1)  # (B, D)
        passage = pad_sequence([self.ids([*words, "."]) for words in read], batch_first=True)  # (B, T), one more place
        match = [
            torch.tensor([word.lower() in {own.lower() for own in question} for word in [*words, ""]])
            for question, words in zip(asked, read, strict=True)
        ]
        matches = pad_sequence(match, batch_first=True).long()
        lengths = torch.tensor([len(words) for words in read])
        real = torch.arange(passage.shape[1]) < lengths[:, None]
        about = self.question(mean)
        x = self.words(passage) + self.matches(matches) + about[:, None]
        for block in self.blocks:
            x = block(x, real[..., None])
        places = self.place(x)[..., 0].masked_fill(~real, -torch.inf)
        return torch.cat([places, self.entries(F.relu(about))], 1).log_softmax(1), read

    def log_likelihood(self, examples: Sequence[Example]) -> Tensor:
        """Log-probability (B,) that the answer is one of the right words; -inf where none can be given."""
        scores, read = self.log_probs([(e.question, e.passage) for e in examples])
        places = scores.shape[1] - len(self.answers)
        right = torch.zeros_like(scores, dtype=torch.bool)
        for row, (example, words) in enumerate(zip(examples, read, strict=True)):
            row_words = words + [""] * (places - len(words)) + self.answers
            right[row] = torch.tensor([word in example.answers for word in row_words])
        return scores.masked_fill(~right, -torch.inf).logsumexp(1)

    @torch.no_grad()
    def answer(self, question: str, passage: str = "") -> str:
        """The word of the highest probability."""
        scores, (words,) = self.log_probs([(question, passage)])
        total: dict[str, float] = defaultdict(float)
        for word, p in zip([*words, "", *self.answers], scores[0].exp().tolist(), strict=True):
            total[word] += p
        return max(total, key=lambda word: total[word])


def train_reader(
    examples: Sequence[Example],
    others: Collection[str],
    *,
    steps: int,
    without: float = 0.15,
    wrong: float = 0.15,
    batch_size: int = 64,
    lr: float = 3e-3,
    seed: int = 0,
) -> CopyingReader:
    """Train a reader. Some questions have no passage or a wrong one, so that it also learns to answer from memory.

    Torch's global random state stays unchanged.

    Args:
        examples: with the right passages.
        others: passages to choose wrong ones from.
        steps: batches.
        without: share of the questions without a passage.
        wrong: share of the questions with a random passage.
        batch_size: questions of a batch.
        lr: the largest learning rate.
        seed: of weights and order.
    """
    generator, passages = torch.Generator().manual_seed(seed), list(others)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reader = CopyingReader.for_examples(examples)
    optimizer = torch.optim.AdamW(reader.parameters(), lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(examples), (batch_size,), generator=generator).tolist()
        kinds = torch.rand(batch_size, generator=generator).tolist()
        random = torch.randint(len(passages), (batch_size,), generator=generator).tolist()
        batch = []
        for row, kind, number in zip(rows, kinds, random, strict=True):
            own = examples[row]
            passage = "" if kind < without else passages[number] if kind < without + wrong else own.passage
            batch.append(Example(own.question, passage, own.answers))
        nats = -reader.log_likelihood(batch)
        possible = nats.isfinite()  # an answer that neither the passage nor the list has cannot be learned
        loss = nats[possible].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return reader.eval()
