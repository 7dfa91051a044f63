"""Divergences of distillation against sums over a small alphabet."""

import math

import pytest
import torch

from zoo.nn.losses.distillation import distillation_loss


def distributions() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    one, two = (2 * torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    return one.log_softmax(-1), two.log_softmax(-1)


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("mix", [0.2, 0.5, 0.9])
def test_divergences_are_their_sums(mix: float) -> None:
    student, teacher = distributions()
    wanted: dict[str, list[float]] = {"forward_kl": [], "reverse_kl": [], "jsd": []}
    for s, t in zip(student.exp().tolist(), teacher.exp().tolist(), strict=True):
        middle = [mix * b + (1 - mix) * a for a, b in zip(s, t, strict=True)]
        wanted["forward_kl"].append(kl(t, s))
        wanted["reverse_kl"].append(kl(s, t))
        wanted["jsd"].append(mix * kl(t, middle) + (1 - mix) * kl(s, middle))
    for kind, values in wanted.items():
        assert distillation_loss(kind, student, teacher, mix=mix).tolist() == pytest.approx(values)  # type: ignore[arg-type]
        assert distillation_loss(kind, student, student, mix=mix).abs().max() < 1e-12  # type: ignore[arg-type]
    for kind, other in (("forward_kl", "reverse_kl"), ("reverse_kl", "forward_kl")):
        found = distillation_loss(kind, teacher, student)  # type: ignore[arg-type]
        assert found.tolist() == pytest.approx(wanted[other]), "the control: swapped, they are each other"
        assert found.tolist() != pytest.approx(wanted[kind], rel=1e-2)


def test_the_divergence_in_between_tends_to_both() -> None:
    student, teacher = distributions()
    for mix, kind, share in ((1e-6, "forward_kl", 1e-6), (1 - 1e-6, "reverse_kl", 1e-6)):
        near = distillation_loss("jsd", student, teacher, mix=mix) / share
        torch.testing.assert_close(near, distillation_loss(kind, student, teacher), rtol=1e-3, atol=1e-4)  # type: ignore[arg-type]
