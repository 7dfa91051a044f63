"""Validity, uniqueness and novelty of generated molecules."""

from typing import Any

from zoo.core.registry import register
from zoo.core.smiles_syntax import syntax_error
from zoo.data.base import DataModule
from zoo.data.text.smiles import Smiles
from zoo.evaluation.context import EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.metrics.smiles import canonical, shares
from zoo.models.abilities import SupportsTextGeneration
from zoo.models.ability import supports
from zoo.models.base import Model

N_MOLECULES = 256


@register("suite", "molecules")
class MoleculeSuite(Suite):
    """Shares of valid, different and new molecules.

    With the extra `molecules`, RDKit decides (`valid_rdkit`). Without it, the syntax alone does, which accepts wrong
    valences (`valid_syntax`).
    """

    order = 31
    draws = True

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models that generate molecules."""
        return supports(model, SupportsTextGeneration) and isinstance(data, Smiles)

    def measure(self, context: EvaluationContext) -> Scores:
        """`valid`, of the valid ones `unique`, and of these `novel`."""
        model, data = context.model, context.data
        assert isinstance(data, Smiles)
        generate: Any = model.generate
        made = generate([""] * N_MOLECULES, max_new_tokens=data.context, seed=context.protocol.seed)
        texts, (known, *held) = [each.text for each in made], data.texts
        judge, form = "rdkit", canonical
        try:
            canonical("C")
        except ImportError:
            judge, form = "syntax", accepted
        training = [found for text in known if (found := form(text))]
        drawn = [found for text in texts if (found := form(text))]
        real = held[context.protocol.split != "val"]
        ideal = shares(real, [found for text in real if (found := form(text))], training)
        return {
            context.name(f"{name}_{judge}", len(texts)): Metric(value, "higher", ideal[name])
            for name, value in shares(texts, drawn, training).items()
        }


def accepted(text: str) -> str | None:
    """The text itself, if it is SMILES by its syntax."""
    return None if not text or syntax_error(text) else text
