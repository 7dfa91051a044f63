"""All evaluation suites by name."""

from collections.abc import Callable

from zoo.evaluation.context import EvaluationContext, Scores
from zoo.evaluation.suites.latent import latents
from zoo.evaluation.suites.likelihood import likelihood, predictions
from zoo.evaluation.suites.reconstruction import reconstructions
from zoo.evaluation.suites.samples import samples

GROUPS: dict[str, Callable[[EvaluationContext], Scores]] = {
    "likelihood": likelihood,
    "prediction": predictions,
    "samples": samples,
    "reconstruction": reconstructions,
    "latent": latents,
}
