"""Compare an exported file with the model that it was written from."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from zoo.data.loader import make_generator
from zoo.interop.export.formats import Format, load_onnx, load_pt2
from zoo.io.weights_file import unpack
from zoo.models.abilities import SupportsExport, SupportsSampling
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.nn.samplers.exportable import ExportableSampler
from zoo.runs.checkpoint import restore_model

BATCH_SIZES = (16, 1)


@torch.no_grad()
def max_abs_error(model: Model, core: ExportableSampler | None, path: Path, kind: Format) -> float:
    """Maximum error of the file's samples, for batches of 16 and of 1; 0 means bit-identical.

    Of a model that does not sample, the weights are compared, or its function of random inputs if it exports one.
    Samples larger than one count relative to the maximum. Token models are compared by probabilities on random
    tokens: as many as the context holds, at most 32, and a single one.
    """
    program: Callable[..., Tensor]
    if kind == "safetensors":
        loaded = restore_model(unpack(path))
        if core is None and not supports(model, SupportsSampling):
            values = zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
            return max(max_abs_difference(one.double(), other.double()) for one, other in values)
        if core is None:
            pairs = [[m.sample(n, generator=make_generator(n)) for m in (model, loaded)] for n in BATCH_SIZES]
            return max(max_abs_difference(*pair) for pair in pairs)
        assert supports(loaded, SupportsExport)
        program = loaded.export_module().eval()
    else:
        program = load_pt2(path) if kind == "torch_export" else load_onnx(path)
    assert core is not None
    errors = []
    for n in BATCH_SIZES:
        inputs = core.draw(n, make_generator(n))
        if core.start_tokens:
            tokens = inputs[0][:, : 32 if n > 1 else 1]
            errors.append(max_abs_difference(core(tokens).softmax(-1), program(tokens).softmax(-1)))
        else:
            samples = supports(model, SupportsSampling)
            expected = model.sample(n, generator=make_generator(n)) if samples else core(*inputs)
            errors.append(max_abs_difference(expected, program(*inputs)))
    return max(errors)


def max_abs_difference(expected: Tensor, actual: Tensor) -> float:
    """Maximum absolute difference, over the maximum value if that exceeds one; infinite for different shapes."""
    if expected.shape != actual.shape:
        return math.inf
    return float((expected - actual).abs().max() / expected.abs().max().clamp(min=1))
