"""A training step on an accelerator: all tensors are on the model's device, and the host never waits.

No accelerator is required. `device()` simulates one that computes shapes only. It rejects operations that read a
number back, which wait on a GPU. It also rejects operations that mix devices, which fail after minutes there.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.contracts.specs import CASES, examples, make, one_case_of_each_class
from tests.contracts.test_models import minimised, trainable
from zoo.data.base import DataModule
from zoo.data.batch import Batch
from zoo.data.image.digits import Digits
from zoo.data.image.torchvision import TorchvisionData
from zoo.data.loader import make_generator
from zoo.data.text.stdlib import Stdlib
from zoo.data.vector.toy2d import Ring8


class Copies(TorchDispatchMode):
    """Notes copies between the device and the host; what concerns the host alone is computed in truth."""

    def __init__(self) -> None:
        super().__init__()
        self.back: list[tuple[int, ...]] = []
        self.there: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.device(kwargs.get("device") or "cpu").type == "cpu" and not any(
            isinstance(value, FakeTensor) for value in tree_leaves((args, kwargs))
        ):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        result = func(*args, **kwargs)
        if func._overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_):
            source, target = (args[0], result) if func._overloadpacket is torch.ops.aten._to_copy else args[1::-1]
            if source.device != target.device:
                (self.back if target.device.type == "cpu" else self.there).append(tuple(source.shape))
        return result


@contextmanager
def device() -> Iterator[Copies]:
    """Tensors on "meta" are on the accelerator in here."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # pretended weights are of another class
    autocast = torch.autocast
    try:
        torch.autocast = lambda kind, *args, **kwargs: autocast("cpu" if kind == "meta" else kind, *args, **kwargs)
        # `torch.func.jvp` makes constants that cannot be read, which a mode without an environment tries.
        environment = ShapeEnv(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)
        with FakeTensorMode(allow_non_fake_inputs=True, shape_env=environment, static_shapes=True), Copies() as copies:
            yield copies
    finally:
        torch.autocast = autocast
        torch.__future__.set_overwrite_module_params_on_conversion(before)


@pytest.mark.parametrize(("name", "key"), one_case_of_each_class(CASES))
def test_a_step_stays_on_the_device(name: str, key: str) -> None:
    if name in ("grpo", "ppo"):
        pytest.skip("it learns from texts that it writes, which the host looks at")
    if name == "flow_matching":
        pytest.skip("the host assigns noise to data")
    model = make(name, key)
    trainable(model)
    batch = examples(model.spec, 16)
    with device() as copies:
        model.to("meta")
        x, y = (part.to("meta") for part in batch)
        copies.there.clear()
        minimised(model.loss(Batch(x, y))).backward()
        assert copies.back == []
        assert sum(map(math.prod, copies.there)) <= 3 * x.numel(), "no more than some random numbers goes there"
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_reading_a_number_back_is_found() -> None:
    with device():
        x = torch.ones(3).to("meta")
        with pytest.raises(DataDependentOutputException):
            float(x.sum())
        with pytest.raises(RuntimeError, match="two devices"):
            x + torch.ones(3)


def test_a_copy_is_found() -> None:
    with device() as copies:
        x = torch.ones(3).to("meta")
        x.cpu()
    assert copies.back == copies.there == [(3,)]


class Pictures(TorchvisionData):
    """Mirrored at random."""

    original = (3, 4, 4)
    classes = tuple("abcdefghij")
    registered_name = "pictures"

    def load(self) -> None:
        x = torch.randint(256, (90, 3, 4, 4), dtype=torch.uint8, generator=make_generator(0))
        self.train = self.val = self.test = x, torch.arange(90) % 10


DATA: dict[str, Callable[[], DataModule]] = {
    "digits": lambda: Digits(batch_size=16),
    "ring8": lambda: Ring8(batch_size=16),
    "stdlib": lambda: Stdlib(batch_size=16, context=32, tokenizer="byte"),
    "flipped": lambda: Pictures(batch_size=16, flip=True),
}


@pytest.mark.parametrize("name", DATA)
def test_batches_are_cut_where_the_model_is(name: str) -> None:
    """The data goes there once and each epoch's order once; a batch is a few random numbers at most."""
    data = DATA[name]()
    data.setup()
    assert data.keep_on_gpu or type(data).fetch is DataModule.fetch
    want = next(iter(data.train_dataloader()))
    with device() as copies:
        loader = data.train_dataloader()
        loader.device = torch.device("meta")
        stream = iter(loader)
        first = next(stream)
        moved = [*data.train, torch.empty(len(loader.index_sampler))]
        assert sum(map(math.prod, copies.there)) <= sum(part.numel() for part in moved) + 16
        copies.there.clear()
        second = next(stream)
        assert sum(map(math.prod, copies.there)) <= 16
        assert copies.back == []
    for batch in (first, second):
        for part, like in zip(batch, want, strict=True):
            assert (part.device.type, part.shape, part.dtype) == ("meta", like.shape, like.dtype)


@pytest.mark.parametrize(("memory", "home"), [(10**6, "cuda"), (10**5, "cpu")])
def test_data_stay_on_the_host_where_they_would_fill_the_device(
    memory: int, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=memory))
    data = Pictures(batch_size=16)  # 90 pictures of 48 bytes and labels of 8, thrice: 15 KB
    data.setup()
    assert data.batch_device(torch.device("cuda")).type == home
    assert data.batch_device(torch.device("cpu")).type == "cpu"
    data.keep_on_gpu = False
    assert data.batch_device(torch.device("cuda")).type == "cpu"


def test_whose_data_may_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third-party `fetch` may not support devices, so its data stay on the host. The inherited `fetch` does."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=10**9))

    class Own(Digits):
        def fetch(self, split, indices, generator, *, train):
            return split[0][indices], split[1][indices]

    homes = []
    for kind in (Digits, Own):
        data = kind(batch_size=16)
        data.setup()
        homes.append(data.batch_device(torch.device("cuda")).type)
    assert homes == ["cuda", "cpu"]
