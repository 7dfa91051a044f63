"""Compare tables with `ctgan` and `sdv`: `python -m tests.benchmarks.tables --python OTHER/bin/python`.

The other interpreter has `ctgan` and `sdv` installed; their licence is the Business Source License, so they are not
dependencies. Both sides learn the same rows in turn, with equal epochs, batches, networks and noise, on one thread.
The rows are those of a known law, or of `--data`, a table of scikit-learn. Times are those of the processor, with what
a fit does before its first step. Scores are those of `zoo evaluate`, on held-out rows: `column_shapes`, `pair_trends`
and `train_on_samples`, an accuracy or R2.
"""

import argparse
import csv
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as L
import torch

import zoo
from zoo.data.batch import Batch
from zoo.data.table.rows import to_csv
from zoo.metrics.tables import column_shapes, efficacy, pair_trends
from zoo.models.base import Model
from zoo.nn.blocks.table_codec import TableCodec

ROWS, WIDTH, NOISE, PACK = 2_500, 256, 128, 10
NETWORK = {"name": "mlp", "width": WIDTH, "depth": 2}
OURS: dict[str, dict[str, Any]] = {
    "ctgan": {
        "generator": NETWORK | {"norm": "batch"},
        "discriminator": NETWORK,
        "noise_dim": NOISE,
        "pack": PACK,
    },
    "tvae": {"encoder": NETWORK, "decoder": NETWORK, "latent_dim": NOISE, "prior": "standard"},
    "gaussian_copula": {},  # fitted, without epochs
}
FITTED = "gaussian_copula"
THEIRS = """
import json, sys, time
import pandas, torch, ctgan
torch.set_num_threads(1)
torch.manual_seed(0)
kind, rows, out, choices = sys.argv[1:5]
epochs, batch, width, noise, pack = [int(v) for v in sys.argv[5:]]
choices = json.loads(choices)
table = pandas.read_csv(rows, dtype={name: str for name in choices})
version = ctgan.__version__
sizes = {"embedding_dim": noise, "batch_size": batch, "epochs": epochs}
if kind == "ctgan":
    model = ctgan.CTGAN(generator_dim=(width,) * 2, discriminator_dim=(width,) * 2, pac=pack, **sizes)
elif kind == "gaussian_copula":
    import sdv
    from sdv.metadata import Metadata
    from sdv.single_table import GaussianCopulaSynthesizer
    kinds = {name: {"sdtype": "categorical" if name in choices else "numerical"} for name in table}
    metadata = Metadata.load_from_dict({"tables": {"t": {"columns": kinds}}})
    model, version = GaussianCopulaSynthesizer(metadata), sdv.__version__
else:
    model = ctgan.TVAE(compress_dims=(width,) * 2, decompress_dims=(width,) * 2, **sizes)
begun = time.process_time()
if kind == "gaussian_copula":
    model.fit({"t": table})
else:
    model.fit(table, choices)
fitted = time.process_time()
found = model.sample(len(table))
(found["t"] if isinstance(found, dict) else found).to_csv(out, index=False)
print(json.dumps([fitted - begun, time.process_time() - fitted, version]))
"""


def bimodal(path: Path, n: int = ROWS) -> None:
    """Write rows of a known law: a group, a number with two modes, and one that depends on it."""
    generator = torch.Generator().manual_seed(0)
    group = (torch.rand(n, generator=generator) >= 0.7).long()
    left = torch.rand(n, generator=generator) < torch.where(group == 0, 0.8, 0.3)
    value = torch.where(left, -5.0, 5.0) + torch.where(left, 0.5, 1.0) * torch.randn(n, generator=generator)
    score = 2.0 * left + 0.3 * value + 0.5 * torch.randn(n, generator=generator)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["group", "value", "score"])
        for g, v, s in zip(group.tolist(), value.tolist(), score.tolist(), strict=True):
            writer.writerow(["ab"[g], f"{v:.3f}", f"{s:.3f}"])


def ours(kind: str, data: Any, epochs: int, folder: Path) -> tuple[float, float, Path]:
    """Processor seconds of training and of sampling as many rows, and the CSV."""
    torch.manual_seed(0)
    model: Model = zoo.create_model(kind, data=data.spec, **OURS[kind])
    steps = epochs * (len(data.train[0]) // data.batch_size)
    begun = time.process_time()
    if kind == FITTED:
        model.fit(model.statistics(Batch(*data.train)))
    else:
        trainer = L.Trainer(
            max_steps=model.optimizer_steps(steps), max_epochs=-1, accelerator="cpu", logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(model, datamodule=data)
    fitted = time.process_time()
    x = model.eval().sample(len(data.train[0]), seed=0)
    out = folder / "ours.csv"
    out.write_text(to_csv(data.spec.x, x))
    return fitted - begun, time.process_time() - fitted, out


def theirs(python: str, kind: str, rows: Path, data: Any, epochs: int, folder: Path) -> tuple[float, float, Path, str]:
    """The same of the package, and its version."""
    out = folder / "theirs.csv"
    numbers = [str(v) for v in (epochs, data.batch_size, WIDTH, NOISE, PACK)]
    choices = json.dumps([column.name for column in data.spec.x.columns if column.kind == "category"])
    told = subprocess.run(
        [python, "-c", THEIRS, kind, str(rows), str(out), choices, *numbers],
        stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
    )  # fmt: skip
    fitted, sampled, version = json.loads(told.stdout.splitlines()[-1])
    return fitted, sampled, out, version


def scores(data: Any, path: Path) -> tuple[float, ...]:
    """Mean column shape, mean pair trend, and accuracy or R2 of trees that predict the target of held-out rows."""
    columns, codec = TableCodec(data.spec.x).columns, TableCodec(data.spec.x)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = [[c.categories.index(r[c.name]) if c.categories else float(r[c.name]) for c in columns] for r in rows]
    target = [column.name for column in columns].index(data.target)
    fake, real = torch.tensor(cells, dtype=torch.float64), codec.decode(data.test[0])
    parts = column_shapes(real, fake, columns), pair_trends(real, fake, columns)
    return *(sum(part) / len(part) for part in parts), efficacy(fake, real, columns, target)


def main() -> None:
    """Print one row for each model and side, and the ratios of rows per second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True, help="interpreter with the packages ctgan and sdv")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch", type=int, default=400, help=f"rows, a multiple of {PACK}")
    parser.add_argument("--data", choices=["bimodal", "diabetes", "wine"], default="bimodal")
    parser.add_argument("--models", nargs="+", choices=list(OURS), default=list(OURS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bimodal(folder / "all.csv")
        chosen = {"path": str(folder / "all.csv"), "target": "group"} if given.data == "bimodal" else {}
        name_of_data = "mixed_table" if given.data == "bimodal" else given.data
        data = zoo.create_data(name_of_data, batch_size=given.batch, **chosen)
        data.setup()
        rows, total = folder / "train.csv", given.epochs * len(data.train[0])
        rows.write_text(to_csv(data.spec.x, data.train[0]))
        print("real rows", *(f"{v:.3f}" for v in scores(data, rows)))
        for kind in given.models:
            other = theirs(given.python, kind, rows, data, given.epochs, folder)
            own = ours(kind, data, given.epochs, folder)
            for who, (fitted, sampled, out, *_) in (("zoo", own), (f"the package, version {other[3]}", other)):
                shown = ", ".join(f"{v:.3f}" for v in scores(data, out))
                speed = f"{fitted:.2f} s" if kind == FITTED else f"{total / fitted:,.0f} rows per processor second"
                print(f"{kind} of {who}: {speed}, sampled in {sampled:.2f} s, scores {shown}")
            print(f"{kind}: {other[0] / own[0]:.2f} times as fast")


if __name__ == "__main__":
    main()
