"""Score a text file with a language model."""

from pathlib import Path

import torch

from zoo.core.errors import ConfigError
from zoo.core.spaces import Pair
from zoo.data.text.scored_file import ScoredFile
from zoo.evaluation.context import EvaluationConfig, EvaluationContext, Metric
from zoo.evaluation.evaluate import Evaluation
from zoo.evaluation.suites.likelihood import text_likelihood
from zoo.hub.pretrained import resolve
from zoo.interop.huggingface import load as huggingface
from zoo.io.device import find_device
from zoo.models.abilities import SupportsLogProb
from zoo.models.ability import supports
from zoo.models.base import Model
from zoo.runs.checkpoint import find_checkpoint, read_checkpoint, restore_model


def load_model(run: str | Path) -> tuple[Path, Model]:
    """Path of the weights, and the model of a run, a checkpoint, a pretrained model or a Hugging Face folder."""
    place = resolve(run)
    if huggingface.is_folder(place):
        return place / huggingface.WEIGHTS, huggingface.load(place)
    path = find_checkpoint(place)
    return path, restore_model(read_checkpoint(path))


def evaluate_file(run: str | Path, file: str | Path, *, device: str = "cpu") -> Evaluation:
    """Measure nats per token, perplexity and bits per byte of a text file by two policies.

    `blocks256`: adjacent blocks; a token is predicted from those before it in its block. `windows256_stride128`: each
    token has at least 128 tokens before it, apart from those of the first window.

    Args:
        run: run folder, checkpoint, pretrained model, or folder in the Hugging Face format.
        file: UTF-8 text.
        device: cpu, cuda, cuda:1 ...

    Raises:
        ConfigError: no such file; a model without an exact likelihood of text.
        DataError: not text, or an empty file.
    """
    file = Path(file)
    if not file.is_file():
        raise ConfigError(f"--text={file}: no such file. Give a text file.")
    path, model = load_model(run)
    tokens = model.spec.tokens.tokenizer if model.spec.text and not isinstance(model.spec.x, Pair) else None
    if not tokens or not supports(model, SupportsLogProb):
        raise ConfigError(f"--text: {run} does not score running text. Give a language model.")
    model = model.to(find_device(device)).eval()
    scores: dict[str, Metric] = {}
    with torch.no_grad():
        for stride in dict.fromkeys((model.spec.size, max(model.spec.size // 2, 1))):
            data = ScoredFile(file, model.spec, stride)
            data.setup()
            scores |= text_likelihood(EvaluationContext(model, data, EvaluationConfig()))
    facts = {"protocol": {"text": str(file)}, "data": {"name": "text"}, "features": {}}
    return Evaluation(path, facts, scores)
