"""Baselines fitted where the training data lie on a GPU."""

import pytest
import torch

from tests.contracts.specs import SPECS, examples, make
from zoo.data.batch import Batch
from zoo.models.baselines.base import gather


def test_rows_are_gathered_on_the_cpu() -> None:
    class OnDevice:
        """A batch's values, which must be copied to the CPU."""

        def __init__(self, x: torch.Tensor) -> None:
            self.x = x

        def __len__(self) -> int:
            return len(self.x)

        def cpu(self) -> torch.Tensor:
            return self.x

    x, y = torch.randn(8, 2), torch.zeros(8)
    loader = [Batch(x[:4], y[:4]), Batch(x[4:], y[4:])]
    assert torch.equal(gather(loader, lambda batch: OnDevice(batch.x), 8), x)  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError):  # the control: values that stay where they are cannot be joined
        torch.cat([OnDevice(x)])  # type: ignore[list-item]


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["gmm", "ppca", "marginal"])
def test_a_fit_is_that_of_the_cpu(name: str) -> None:
    x, _ = examples(SPECS["vector"], 64)
    here, there = make(name, "vector"), make(name, "vector").cuda()
    here.fit(gather([Batch(x, None)], here.statistics, 64))
    there.fit(gather([Batch(x.cuda(), None)], there.statistics, 64))
    for one, other in zip(here.buffers(), there.buffers(), strict=True):
        torch.testing.assert_close(one, other.cpu())
