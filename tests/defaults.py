"""Train the default recipes on different data, and print one row for each pair.

    python -m tests.defaults --quick    # a tenth of the batches
    python -m tests.defaults --models vae,gan --data faces,readings -- model.latent_dim=8

Some pictures and vectors are rendered from seeds. MNIST, CIFAR-10 as JPEG, Shakespeare and Multi30k come from
`$ZOO_DATA`. A row whose data are missing is left out with a message.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image, ImageDraw, ImageFilter

import zoo
from zoo.config.compose import compose
from zoo.core.signature import PositiveInt
from zoo.core.spaces import Vector
from zoo.metrics.prdc import prdc
from zoo.runs.folder import RunFolder
from zoo.training.diagnosis import read_curves
from zoo.training.train import build_data

IMAGES = {
    "digits": ["data=digits"],
    "mnist": ["data=mnist"],
    "binary_mnist": ["data=mnist", "data.binarize=threshold"],
    "stacked_mnist": ["data=stacked_mnist"],
    "cifar": ["data=images", "data.path={cifar}"],
    "faces": ["data=images", "data.path={faces}"],
    "scenes": ["data=images", "data.path={scenes}"],
}
VECTORS = {
    "moons": ["data=moons"],
    "grid25": ["data=grid25"],
    "rings": ["data=rings"],
    "readings": ["data=readings", "+data.path={readings}"],
}
TEXTS = {
    "stdlib": ["data=stdlib"],
    "shakespeare": ["data=text", "data.path={shakespeare}"],
    "words": ["data=text", "data.path={words}"],
    "german": ["data=text", "data.path={german}"],
    "short": ["data=text", "data.path={short}"],
}
MODELS = {
    "vae": IMAGES | VECTORS,
    "gan": IMAGES | VECTORS,
    "ae": IMAGES | VECTORS,
    "gpt": TEXTS,
    "image_gpt": {name: IMAGES[name] for name in ("digits", "binary_mnist", "faces")},
}
N = 500  # samples, and held-out ones to compare them with


# -- rendered data --------------------------------------------------------------------------------------------


def face(rng: random.Random, height: int = 28, width: int = 20) -> Image.Image:
    """A grey face with random pose, expression and light."""
    scale = 8
    w, h = width * scale, height * scale
    turn, nod = rng.gauss(0, 0.8), rng.gauss(0, 0.5)
    smile, gape, lid = rng.gauss(0.3, 0.6), max(rng.gauss(0, 0.5), 0.0), min(max(rng.gauss(0.8, 0.4), 0.1), 1.0)
    light, tone = rng.gauss(0, 0.6), rng.gauss(0, 8)
    grey = Image.new("L", (w, h), round(60 + tone))
    draw = ImageDraw.Draw(grey)

    def ellipse(x: float, y: float, a: float, b: float, level: float) -> None:
        draw.ellipse((x - a, y - b, x + a, y + b), fill=round(min(max(level + tone, 0), 255)))

    x, y = w / 2 + turn * 0.05 * w, h / 2 + nod * 0.04 * h
    ellipse(x, y - 0.06 * h, 0.47 * w, 0.46 * h, 50)  # hair
    ellipse(x + turn * 0.02 * w, y + 0.03 * h, 0.40 * w, 0.42 * h, 175)  # head
    fx, fy = x + turn * 0.07 * w, y + nod * 0.03 * h
    for side in (-1, 1):
        ex, ey = fx + side * 0.17 * w, fy - 0.06 * h
        draw.arc(
            (ex - 0.10 * w, ey - 0.12 * h, ex + 0.10 * w, ey), 200, 340, fill=round(70 + tone), width=scale
        )  # brow
        ellipse(ex, ey, 0.085 * w, 0.045 * h * lid, 225)
        ellipse(ex + turn * 0.02 * w, ey, 0.035 * w, 0.04 * h * lid, 30)
    ellipse(fx + turn * 0.03 * w, fy + 0.06 * h, 0.05 * w, 0.06 * h, 150)  # nose
    my = fy + 0.22 * h
    ellipse(fx, my, 0.14 * w, (0.015 + 0.06 * gape) * h, 60)
    bend = 0.07 * h * abs(smile)
    box = (fx - 0.17 * w, my - bend, fx + 0.17 * w, my + bend)
    if bend > 1:
        draw.arc(box, *((0, 180) if smile > 0 else (180, 360)), fill=round(80 + tone), width=scale)
    pixels = np.asarray(grey.filter(ImageFilter.GaussianBlur(scale * 0.6)), dtype=np.float32)
    slope = np.linspace(-1, 1, w, dtype=np.float32)[None]
    pixels = pixels * (1 + 0.25 * light * slope)
    small = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BOX)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 4, (height, width))
    return Image.fromarray((np.asarray(small) + noise).clip(0, 255).astype(np.uint8))


def scene(rng: random.Random, size: int = 64) -> Image.Image:
    """A colour landscape: sky, sun, hills and a house with random colours and positions."""
    w = size * 4
    sky = tuple(rng.randint(90, 255) for _ in range(3))
    picture = Image.new("RGB", (w, w), sky)
    draw = ImageDraw.Draw(picture)
    x, y, r = rng.uniform(0.1, 0.9) * w, rng.uniform(0.1, 0.35) * w, rng.uniform(0.05, 0.12) * w
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, rng.randint(180, 250), rng.randint(40, 160)))
    for k in range(3):
        base, phase, swing = (0.45 + 0.12 * k) * w, rng.uniform(0, 7), rng.uniform(0.02, 0.1) * w
        ridge = [(t, base + swing * math.sin(phase + t / w * rng.choice([3, 5]))) for t in range(0, w + 4, 4)]
        colour = (rng.randint(20, 90), rng.randint(80, 170) - 20 * k, rng.randint(20, 90))
        draw.polygon([(0, w), *ridge, (w, w)], fill=colour)
    x, s = rng.uniform(0.1, 0.7) * w, rng.uniform(0.12, 0.22) * w
    wall = tuple(rng.randint(120, 250) for _ in range(3))
    draw.rectangle((x, 0.9 * w - s, x + s, 0.9 * w), fill=wall)
    draw.polygon(
        [(x - 0.1 * s, 0.9 * w - s), (x + s / 2, 0.9 * w - 1.7 * s), (x + 1.1 * s, 0.9 * w - s)], fill=(150, 50, 40)
    )
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def render(folder: Path, draw: Callable[[random.Random], Image.Image], n: int, seed: int = 0) -> Path:
    """A folder of n pictures; an existing one is used again."""
    if not folder.is_dir() or len(list(folder.iterdir())) < n:
        folder.mkdir(parents=True, exist_ok=True)
        rng = random.Random(seed)
        for number in range(n):
            draw(rng).save(folder / f"{number:05}.png")
    return folder


def prepare(work: Path) -> dict[str, Path]:
    """Files and folders by the names in the settings; those that need a missing `$ZOO_DATA` are left out."""
    work.mkdir(parents=True, exist_ok=True)
    have = {"faces": render(work / "faces", face, 1965), "scenes": render(work / "scenes", scene, 200)}
    have["readings"] = work / "readings.npy"
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(4, 4))
    np.save(
        have["readings"], (1000 + 100 * rng.normal(size=(5000, 4)) @ mix / np.linalg.norm(mix, axis=0)).astype("f4")
    )
    root = Path(os.environ.get("ZOO_DATA", "data"))
    if (root / "tinyshakespeare" / "input.txt").is_file():
        have["shakespeare"] = root / "tinyshakespeare" / "input.txt"
        have["short"] = work / "short.txt"
        have["short"].write_text(have["shakespeare"].read_text()[:20_000])
    if (root / "multi30k" / "train.de").is_file():
        have["german"] = root / "multi30k" / "train.de"
        have["words"] = work / "words.txt"  # a shuffled list, one a line
        words = sorted({word.lower() for word in have["german"].read_text().split() if word.isalpha()})
        have["words"].write_text("\n".join(random.Random(0).sample(words, len(words))))
    if (root / "cifar10-jpeg.zip").is_file():
        have["cifar"] = work / "cifar"
        if not have["cifar"].is_dir():
            with zipfile.ZipFile(root / "cifar10-jpeg.zip") as archive:
                found = [n for n in archive.namelist() if n.startswith("train/") and n.endswith(".jpg")]
                archive.extractall(have["cifar"], random.Random(0).sample(sorted(found), 5000))
            (have["cifar"] / "train").rename(have["cifar"] / "pictures")  # a folder named train would be a split
    return have


@zoo.register("data", "readings")
class Readings(zoo.DataModule):
    """Vectors of a NumPy file, not standardised."""

    def __init__(self, *, path: str, batch_size: PositiveInt = 64, seed: int = 0) -> None:
        super().__init__(batch_size, seed)
        self.x = torch.from_numpy(np.load(path)).float()  # (N, D)

    @property
    def spec(self) -> zoo.DataSpec:
        """Vectors of the file's width."""
        return zoo.DataSpec(Vector(self.x.shape[1]), name="readings")

    def load(self) -> None:
        """Split 80 / 10 / 10 %."""
        y = torch.zeros(len(self.x), dtype=torch.long)  # no labels
        a, b = int(0.8 * len(y)), int(0.9 * len(y))
        self.train, self.val, self.test = ((self.x[i:j], y[i:j]) for i, j in ((0, a), (a, b), (b, None)))


# -- runs --------------------------------------------------------------------------------------------------------------


def run(model: str, settings: list[str], folder: Path) -> tuple[int, float, str]:
    """Train in a separate process: exit status, seconds, output."""
    code = "import tests.defaults; from zoo.cli.main import main; main()"
    command = [sys.executable, "-c", code, "train", f"model={model}", *settings, f"hydra.run.dir={folder}"]
    begun = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, time.perf_counter() - begun, done.stdout + done.stderr


def summary(folder: Path) -> dict[str, Any]:
    """Best and last value of each validation metric, and the largest gradient norm."""
    curves = read_curves(folder / "metrics.csv")
    found: dict[str, Any] = {}
    for name, curve in curves.items():
        values = [value for _, value in curve]
        if name.startswith("val/"):
            found[name] = (max(values) if name == "val/elbo" else min(values), values[-1])
    norms = [value for name, curve in curves.items() if name.startswith("grad_norm/") for _, value in curve]
    found["largest gradient"] = max(norms, default=math.nan)
    return found


def compared(folder: Path) -> dict[str, float]:
    """Compare samples with held-out data: share of the variance, density and coverage (Naeem et al. 2020)."""
    model = zoo.load(folder)
    if model.spec.text:
        return {}
    data = build_data(OmegaConf.create(RunFolder(folder).config()))
    real = data.fetch(data.val, torch.arange(min(N, len(data.val[0]))), torch.Generator(), train=False)[0].flatten(1)
    count = min(N, 64) if model.family == "autoregressive" else N  # these sample pixel by pixel
    fake = model.sample(count, generator=torch.Generator().manual_seed(0)).float().flatten(1)
    found = prdc(real, fake, 5)
    return {"spread": (fake.var(0).sum() / real.var(0).sum()).item(), **{k: found[k] for k in ("density", "coverage")}}


def main() -> None:
    """Print the table row by row; append each row to `defaults.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=Path("runs/defaults"))
    parser.add_argument("--work", type=Path, default=Path("runs/defaults/data"))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--data", default="")
    parser.add_argument("--quick", action="store_true", help="a tenth of the batches")
    parser.add_argument("--tag", default="default")
    parser.add_argument("settings", nargs="*", help="more settings for every run")
    given = parser.parse_args()
    have = prepare(given.work)
    given.out.mkdir(parents=True, exist_ok=True)
    for model in given.models.split(","):
        for name in given.data.split(",") if given.data else MODELS[model]:
            try:
                settings = [s.format(**have) for s in MODELS[model][name]]
            except KeyError as missing:
                print(f"{model} {name}: left out. {missing} needs $ZOO_DATA.")
                continue
            if given.quick:
                steps = max(compose(f"model={model}").model.training.max_steps // 10, 20)
                settings += [f"trainer.max_steps={steps}", f"trainer.val_check_interval={max(steps // 2, 1)}"]
            folder = (given.out / f"{model}-{name}-{given.tag}").resolve()
            status, seconds, text = run(model, [*settings, *given.settings], folder)
            row: dict[str, Any] = {
                "model": model,
                "data": name,
                "tag": given.tag,
                "seconds": round(seconds),
                "rc": status,
            }
            if status == 0:
                row |= summary(folder) | compared(folder)
            row["output"] = text.strip().splitlines()[-14:]
            with (given.out / "defaults.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            shown = {k: v for k, v in row.items() if k != "output"}
            print(" ".join(f"{k}={pretty(v)}" for k, v in shown.items()), flush=True)
            if status:
                print(text[-2000:])


def pretty(value: Any) -> str:
    """Format with four digits."""
    if isinstance(value, tuple):
        return "/".join(map(pretty, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
