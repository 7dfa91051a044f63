"""Memory that a training needs, estimated before it begins: weights, gradients, optimizer state and activations.

Activations are what autograd keeps between the passes (`torch.autograd.graph.saved_tensors_hooks`). One loss
is computed without numbers, on torch's meta device. Near the limit it is computed again with `FakeTensorMode`, by the
kernels of the processor. Nothing is allocated.
"""

import logging
import os
import warnings
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from zoo.config.compose import to_plain
from zoo.core import registry
from zoo.core.errors import HardwareError
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.io.memory import available_memory
from zoo.io.vetting import build_on_meta, check_fits_in_memory, model_bytes, nbytes
from zoo.models.base import Model
from zoo.nn.optim.base import OptimizerConfig
from zoo.training.trainer import lightning_options

log = logging.getLogger(__name__)
NEAR = 0.5  # share of the memory above which the estimate is made again, by the processor's kernels
LARGE = 1000  # bytes of activations per byte of a sample, where the meta device cannot count them
CLEARLY = 1.5  # an estimate is refused from this multiple of the memory on; between 1 and it, a warning is given


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that a training needs.

    Args:
        weights: parameters and buffers.
        gradients: of the trained parameters.
        optimizer: state of the optimizers.
        activations: what autograd keeps, of all samples of a batch; None where a loss needs numbers.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int | None

    @property
    def fixed(self) -> int:
        """Bytes that do not depend on the batch."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """All bytes that are known."""
        return self.fixed + (self.activations or 0)

    @property
    def at_least(self) -> int:
        """Bytes with half of the activations: other kernels may keep fewer than the meta device counts."""
        return self.fixed + (self.activations or 0) // 2


class SavedBytes:
    """Counts the bytes that autograd keeps now: a storage counts once, those of `ignored` tensors never.

    Args:
        ignored: parameters and buffers.
    """

    class _Kept:
        """A tensor that autograd keeps."""

        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

    def __init__(self, ignored: list[Tensor]) -> None:
        self.now = self.peak = 0
        self._ignored = {tensor.untyped_storage()._cdata for tensor in ignored}
        self._users: dict[int, int] = {}

    def hooks(self) -> AbstractContextManager[Any]:
        """Context in which tensors are counted."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda kept: kept.tensor)

    def _pack(self, tensor: Tensor) -> Any:
        kept, storage = SavedBytes._Kept(tensor.detach()), tensor.untyped_storage()  # without a cycle through the graph
        if storage._cdata not in self._ignored:
            self._use(storage._cdata, storage.nbytes(), 1)
            weakref.finalize(kept, self._use, storage._cdata, storage.nbytes(), -1)
        return kept

    def _use(self, storage: int, size: int, change: int) -> None:
        before = self._users.get(storage, 0)
        self._users[storage] = before + change
        if before == 0 or before + change == 0:
            self.now += size * change
        self.peak = max(self.peak, self.now)


def estimate(
    build: Callable[[], Model], batch: Batch, size: int, optimizer: OptimizerConfig | None, *, exact: bool = False
) -> MemoryEstimate | None:
    """Estimate the memory of one training step; None for a model whose constructor needs numbers.

    Args:
        build: makes the model.
        batch: a few samples.
        size: samples of a batch.
        optimizer: settings of the optimizer; None counts no state.
        exact: take the processor's kernels, which is slower.
    """
    model = build_on_meta(build)
    if not isinstance(model, Model):
        return None
    trained = [p for p in model.parameters() if p.requires_grad]
    hidden = {id(p) for module in model.hidden_layers() for p in module.parameters() if p.ndim >= 2}
    state = 0.0
    if optimizer is not None:
        shares = {}
        for p in trained:
            kind = (p.ndim >= 2, id(p) in hidden)
            if kind not in shares:
                shares[kind] = state_share(optimizer, *kind)
            state += shares[kind] * nbytes(p)
    activations = None
    if any(p.requires_grad for p in model.parameters()):
        activations = activation_bytes(build if exact else lambda: model, batch, size, exact=exact)
    return MemoryEstimate(model_bytes(model), sum(map(nbytes, trained)), int(state), activations)


def state_share(optimizer: OptimizerConfig, matrix: bool, hidden: bool) -> float:
    """Bytes of an optimizer's state per byte of a parameter, found by one step on a small one."""
    parameter = nn.Parameter(torch.ones(16, 16) if matrix else torch.ones(256))
    parameter.grad = torch.ones_like(parameter)
    made = optimizer.build([{"params": [parameter]}], hidden=[parameter] if hidden else [])
    made.step()
    kept = [value for value in made.state[parameter].values() if isinstance(value, Tensor) and value.numel() > 1]
    return sum(map(nbytes, kept)) / nbytes(parameter)


def activation_bytes(build: Callable[[], Model], batch: Batch, size: int, *, exact: bool = False) -> int | None:
    """Bytes that autograd keeps for a batch of `size` samples; None where the loss needs numbers.

    Where players take turns, theirs are not kept at the same time, and the larger ones count.

    Args:
        build: makes the model; on the meta device if not `exact`.
        batch: a few samples.
        size: samples.
        exact: see `estimate`.
    """
    device = "cpu" if exact else "meta"
    mode = FakeTensorMode(allow_non_fake_inputs=True) if exact else nullcontext()
    try:
        with warnings.catch_warnings(), isolate_rng(include_cuda=False), mode:
            warnings.simplefilter("ignore")  # of kernels without numbers
            model = build().train()
            rows = [None if t is None else t.new_empty((size, *t.shape[1:]), device=device) for t in _parts(batch)]
            saved = SavedBytes([*model.parameters(), *model.buffers()])
            with saved.hooks():
                terms = model.loss(type(batch)(*rows))  # type: ignore[arg-type]
            minimised = {k: v for k, v in terms.items() if k == "loss" or k.startswith("loss_")}
            terms = {}  # from here on, only `minimised` keeps the graphs
            return _largest_player(minimised, saved)
    except Exception as error:  # the loss needs numbers; a fault of it is reported by the training itself
        log.debug("activations are not estimated: %s", error)
        return None


def _parts(batch: Batch) -> tuple[Tensor | None, ...]:
    return batch.x, batch.y, batch.mask


def _largest_player(losses: dict[str, Tensor], saved: SavedBytes) -> int:
    """Bytes kept for the loss, or for the player that has most of them; the losses are removed."""
    found = []
    while losses:
        before = saved.now
        losses.popitem()
        found.append(before - saved.now)
    return max(found, default=0)


def check_memory(cfg: DictConfig, data: DataModule) -> str:
    """Compare the memory that a training needs with the available memory, before its model is allocated.

    Args:
        cfg: composed configuration.
        data: the datamodule.

    Returns:
        A sentence about a need that is larger than the available memory; empty if it fits.

    Raises:
        HardwareError: it clearly does not fit.
    """
    if cfg.trainer.get("strategy") == "fsdp":  # the estimate counts whole weights
        return ""
    settings = {key: value for key, value in to_plain(cfg.model).items() if key != "training"}

    def build() -> Model:
        return registry.build("model", settings, data.spec, where="model")

    model = check_fits_in_memory(build)
    if not isinstance(model, Model) or type(model).loaded is not Model.loaded:  # another stage makes the batches
        return ""
    options, size = lightning_options(cfg, model), data.batch_size
    device = training_device(options)
    have = available_memory(device)
    if have is None:
        return ""
    batch = few_samples(data)
    needs = estimate(build, batch, size, model.optimizer_config)
    at_most = LARGE * size * sum(nbytes(t[:1]) for t in (batch.x, batch.y))
    unsure = needs is not None and needs.fixed + (needs.activations or at_most) > NEAR * have
    if needs is not None and needs.fixed >= have and needs.at_least > CLEARLY * have:
        unsure = False  # refused, and no batch fits: the slower estimate changes neither
    if unsure and device.type == "cpu":
        again = estimate(build, batch, size, model.optimizer_config, exact=True)
        needs = needs if again is None or again.activations is None else again
    if needs is None or needs.total <= have:
        return ""
    certain = str(options["precision"]) in ("32", "32-true") and device.type == "cpu"  # other kernels keep less
    message = explain(needs, have, size)
    if needs.fixed > CLEARLY * have or (certain and needs.total > CLEARLY * have):
        raise HardwareError(message)
    return message


def training_device(options: Mapping[str, Any]) -> torch.device:
    """Device of this process, by the arguments of Lightning's Trainer."""
    kind = options["accelerator"]
    if kind in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        given = options.get("devices")
        index = int(os.environ.get("LOCAL_RANK", 0))
        return torch.device("cuda", given[index] if isinstance(given, list) and index < len(given) else index)
    mps = kind in ("mps", "gpu", "auto") and torch.backends.mps.is_available()
    return torch.device("mps" if mps else "cpu")


def few_samples(data: DataModule) -> Batch:
    """The first two samples of the training data."""
    rows = torch.arange(min(2, len(data.train[0])))
    with isolate_rng(include_cuda=False):
        return Batch.of(data.fetch(data.train, rows, torch.Generator().manual_seed(0), train=True))


def explain(needs: MemoryEstimate, have: int, size: int) -> str:
    """One sentence about the parts, and a remedy."""
    parts = {"weights": needs.weights, "gradients": needs.gradients, "optimizer": needs.optimizer}
    parts |= {"activations": needs.activations or 0}
    listed = ", ".join(f"{name} {gigabytes(part)}" for name, part in parts.items())
    fitting = int(size * (have - needs.fixed) / needs.activations) if needs.activations else 0
    remedy = f"Set data.batch_size={fitting}" if fitting >= 1 else "Choose a smaller model"
    return (
        f"data.batch_size={size}: training needs about {gigabytes(needs.total)} GB ({listed}), "
        f"there are {gigabytes(have)}. {remedy}."
    )


def gigabytes(size: int) -> str:
    """Bytes in GB with one digit after the point, or two below 1."""
    return f"{size / 1e9:.1f}" if size >= 1e9 else f"{size / 1e9:.2f}"
