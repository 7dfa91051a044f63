"""Answers to questions about held-out pictures, beside answers without the picture."""

from collections import Counter, defaultdict
from typing import Any

import torch
from torch import Tensor

from zoo.core.registry import register
from zoo.core.spaces import Questions
from zoo.data.base import DataModule
from zoo.evaluation.context import BATCH, EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.evaluation.suites.likelihood import standard_error
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.models.image_abilities import SupportsQuestionAnswering


@register("suite", "question_answering")
class AnswerSuite(Suite):
    """Share of right answers, for each group of questions where the data has groups."""

    order = 20

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that answer, on data with questions."""
        return supports(model, SupportsQuestionAnswering) and isinstance(data.spec.condition, Questions)

    def measure(self, context: EvaluationContext) -> Scores:
        """Accuracy of the model, and of two answers without the picture.

        The name "question_only" marks the most frequent answer of the training to the same question. The name
        "shuffled" marks the model's answers about the picture of another sample. Standard errors are over pictures.
        """
        model: Any = context.model
        frequent = most_frequent(context.data.train[1])
        found: dict[str, list[Tensor]] = defaultdict(list)
        rows = []
        others = context.order.roll(1).split(BATCH)  # rows of the pictures of other samples
        for batch, other in zip(context.batches(), others, strict=True):
            questions, answers = batch.y[..., :-1], batch.y[..., -1]  # (B, Q, T), (B, Q)
            rows.append(questions.cpu())
            blind = [[frequent.get(tuple(q), -1) for q in of_picture] for of_picture in questions.tolist()]
            found["answer_accuracy"].append((model.answer_tokens(batch.x, questions) == answers).cpu())
            found["answer_accuracy_question_only"].append(torch.tensor(blind) == answers.cpu())
            shuffled = model.answer_tokens(context.real(context.held, other, train=False)[0], questions)
            found["answer_accuracy_shuffled"].append((shuffled == answers).cpu())
        groups = groups_of(context.data, torch.cat(rows))
        scores: Scores = {}
        for name, parts in found.items():
            right = torch.cat(parts).double()  # (N, Q)
            for group, chosen in groups.items():
                weight = chosen.double()
                asked = weight.sum(1) > 0
                share = (right * weight).sum(1)[asked] / weight.sum(1)[asked]  # of each picture
                full = name.replace("accuracy", f"accuracy_{group}") if group else name
                scores[context.name(full)] = Metric(float(share.mean()), "higher", error=standard_error(share))
        return scores


def most_frequent(y: Tensor) -> dict[tuple[int, ...], int]:
    """The most frequent answer to each question, from questions with answers (N, Q, T + 1)."""
    counts: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    distinct, times = y.flatten(0, 1).unique(dim=0, return_counts=True)
    for (*question, answer), n in zip(distinct.tolist(), times.tolist(), strict=True):
        counts[tuple(question)][answer] += n
    return {question: max(sorted(answers), key=lambda a: answers[a]) for question, answers in counts.items()}


def groups_of(data: Any, questions: Tensor) -> dict[str, Tensor]:
    """Questions (N, Q, T) of each group of the data, bool (N, Q); the empty name is all."""
    groups = {"": torch.ones(questions.shape[:2], dtype=torch.bool)}
    if not hasattr(data, "group_of"):
        return groups
    rows, place = questions.flatten(0, 1).unique(dim=0, return_inverse=True)
    names = [data.group_of(data.tokenizer.decode([t for t in row if t >= 0])) for row in rows.tolist()]
    for name in sorted(set(names)):
        chosen = torch.tensor([one == name for one in names])
        groups[name] = chosen[place].view(questions.shape[:2])
    return groups
