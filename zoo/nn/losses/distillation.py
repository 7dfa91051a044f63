"""Divergences between the next-token distributions of a teacher and a student."""

import math
from typing import Literal

import torch
from torch import Tensor

Divergence = Literal["forward_kl", "reverse_kl", "jsd"]


def distillation_loss(kind: Divergence, student: Tensor, teacher: Tensor, *, mix: float = 0.5) -> Tensor:
    """Divergence (...) in nats of two distributions over V tokens.

    - "forward_kl": KL(teacher || student); the student covers everything that the teacher does (Hinton et al. 2015,
      1503.02531, at temperature 1).
    - "reverse_kl": KL(student || teacher); the student avoids what the teacher does not do (Gu et al. 2024,
      2306.08543, equation 1).
    - "jsd": generalised Jensen-Shannon divergence, mix KL(teacher || m) + (1 - mix) KL(student || m) with
      m = mix teacher + (1 - mix) student (Agarwal et al. 2024, 2306.13649, equation 1). Divided by mix or by 1 - mix,
      it tends to the forward KL for mix -> 0, and to the reverse one for mix -> 1.

    Args:
        kind: see above.
        student: log-probabilities (..., V).
        teacher: log-probabilities (..., V).
        mix: the paper's beta, of "jsd", between 0 and 1.
    """
    if kind == "forward_kl":
        return kl_divergence(teacher, student)
    if kind == "reverse_kl":
        return kl_divergence(student, teacher)
    middle = torch.logaddexp(teacher + math.log(mix), student + math.log1p(-mix))
    return mix * kl_divergence(teacher, middle) + (1 - mix) * kl_divergence(student, middle)


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) (...) in nats, of log-probabilities (..., V)."""
    return (p.exp() * (p - q)).sum(-1)
