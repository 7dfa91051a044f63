"""Metrics of latents against the known factors of the data."""

from typing import Any, cast

import torch

from zoo.core.registry import register
from zoo.data.base import DataModule
from zoo.evaluation.context import BATCH, EvaluationContext, Metric, Scores
from zoo.evaluation.suites.base import Suite
from zoo.metrics import disentanglement
from zoo.models.abilities import SupportsLatents
from zoo.models.ability import supports
from zoo.models.base import Model


@register("suite", "disentanglement")
class DisentanglementSuite(Suite):
    """MIG, DCI and SAP, on all splits together: with all combinations of the factors, these are independent."""

    order = 75

    def applies(self, model: Model, data: DataModule) -> bool:
        """Models with latents, of data with known factors."""
        return supports(model, SupportsLatents) and bool(data.factor_names)

    def measure(self, context: EvaluationContext) -> Scores:
        """Compare the codes of all data with their factors."""
        data, model = context.data, cast(Any, context.model)
        codes, factors = [], []
        for split in (data.train, data.val, data.test):
            factors.append(data.factors(split[0]))
            for rows in torch.arange(len(split[0])).split(BATCH):
                x, y = context.real(split, rows, train=False)
                codes.append(model.encode(x.to(model.device), y.to(model.device)).cpu().float())
        z, known = torch.cat(codes), torch.cat(factors)
        mig = disentanglement.mutual_information_gap(z, known)
        sap = disentanglement.separated_attribute_predictability(z, known)
        dci = disentanglement.disentanglement_completeness_informativeness(z, known, context.protocol.seed)
        names = ", ".join(data.factor_names)
        return {
            f"mig@{len(z)}_all": Metric(float(mig.mean()), "higher", parts=tuple(mig.tolist()), note=names),
            f"sap@{len(z)}_all": Metric(float(sap.mean()), "higher", parts=tuple(sap.tolist()), note=names),
            **{f"dci_{name}@{len(z)}_all": Metric(value, "higher") for name, value in dci.items()},
        }
