"""MNIST, Fashion-MNIST and CIFAR-10: files, splits and variants, with synthetic and real files."""

import functools
import gzip
import hashlib
import http.server
import os
import pickle
import socket
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.security.attacks import Call
from zoo.core import registry
from zoo.core.errors import ZooError
from zoo.data.image import torchvision
from zoo.data.loader import fixed_order, make_generator

N_TRAIN, N_TEST = 70, 20
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (N_TRAIN + N_TEST, 28, 28), np.uint8)
COLOUR = RNG.integers(0, 256, (N_TRAIN + N_TEST, 3, 32, 32), np.uint8)
LABELS = RNG.integers(0, 10, N_TRAIN + N_TEST)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Ten validation images, and no network."""

    real = socket.getaddrinfo

    def refuse(host, *args, **options):
        if host == "127.0.0.1":
            return real(host, *args, **options)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(torchvision, "N_VAL", 10)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.delenv("ZOO_DATA", raising=False)


def idx(array):
    """Write MNIST's file format: two zeros, the type, the number of dimensions, the sizes, the data."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(root, name="MNIST"):
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for split, rows in (("train", slice(0, N_TRAIN)), ("t10k", slice(N_TRAIN, None))):
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx(GREY[rows]))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx(LABELS[rows]))
    return root


def write_cifar(root, monkeypatch):
    """Write CIFAR-10's pickles, with the checksums that torchvision verifies."""
    from torchvision.datasets import CIFAR10

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rows = [*np.array_split(np.arange(N_TRAIN), 5), np.arange(N_TRAIN, N_TRAIN + N_TEST)]
    sums = {}
    for name, chosen in zip([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], rows, strict=True):
        content = {"data": COLOUR[chosen].reshape(len(chosen), -1), "labels": LABELS[chosen].tolist()}
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    meta = hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [[f"data_batch_{i}", sums[f"data_batch_{i}"]] for i in range(1, 6)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta})
    return root


def data(name, root, **settings):
    module = registry.build("data", {"name": name, "path": str(root), "batch_size": 8, **settings})
    module.setup()
    return module


@pytest.mark.parametrize(
    ("name", "shape"), [("mnist", (1, 28, 28)), ("fashion_mnist", (1, 28, 28)), ("cifar10", (3, 32, 32))]
)
def test_the_spec_needs_no_files(name, shape, tmp_path):
    module = registry.build("data", {"name": name, "path": str(tmp_path / "none")})
    assert (module.spec.shape, module.spec.n_classes, module.spec.image.levels) == (shape, 10, 256)
    assert (module.spec.x.registered_name, module.spec.name) == ("image", name)
    sized = registry.build("data", {"name": name, "path": str(tmp_path / "none"), "size": [16, 24]})
    assert sized.spec.shape == (shape[0], 16, 24)
    assert not list(tmp_path.iterdir()), "nothing is written"


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_grey_sets_are_cut_as_documented(tmp_path, name, folder):
    module = data(name, write_mnist(tmp_path, folder))
    for split, rows in (("train", slice(0, 60)), ("val", slice(60, 70)), ("test", slice(70, 90))):
        x, y = getattr(module, split)
        assert x.dtype == torch.uint8
        assert np.array_equal(x[:, 0].numpy(), GREY[rows])
        assert y.tolist() == LABELS[rows].tolist()
    x, y = next(iter(module.val_dataloader()))
    assert np.array_equal((x[:, 0] * 255).round().numpy(), GREY[60:70][fixed_order(10)[:8]])
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert (x.min(), x.max()) == (0, 1)


def test_cifar_is_cut_as_documented(tmp_path, monkeypatch):
    module = data("cifar10", write_cifar(tmp_path, monkeypatch))
    for split, rows in (("train", slice(0, 60)), ("val", slice(60, 70)), ("test", slice(70, 90))):
        x, y = getattr(module, split)
        assert x.is_contiguous()
        assert np.array_equal(x.numpy(), COLOUR[rows])
        assert y.tolist() == LABELS[rows].tolist()


def test_the_root_is_the_setting_else_the_environment(tmp_path, monkeypatch):
    write_mnist(tmp_path / "here")
    monkeypatch.setenv("ZOO_DATA", str(tmp_path / "here"))
    module = registry.build("data", {"name": "mnist", "batch_size": 8})
    module.setup()
    assert len(module.test[0]) == N_TEST
    with pytest.raises(ZooError, match="there"):
        data("mnist", tmp_path / "there")


def test_absent_files_without_a_network(tmp_path):
    for name in ("mnist", "fashion_mnist", "cifar10"):
        for hook in ("prepare_data", "setup"):
            module = registry.build("data", {"name": name, "path": str(tmp_path)})
            with pytest.raises(ZooError) as raised:
                getattr(module, hook)()
            message = str(raised.value)
            folder = str((tmp_path / module.files[0]).parent)
            assert message.startswith(f"{name}: {Path(module.files[0]).name}, ")
            assert f"missing in {folder}, and the download failed" in message
            assert "Name or service not known" in message
            assert message.endswith("Set data.path=DIR or ZOO_DATA to the right folder, or try again with a network.")
            assert "\n" not in message


def test_absent_files_and_no_download(tmp_path):
    with pytest.raises(ZooError, match=r"missing in .*\. Set data.path=DIR or ZOO_DATA .*, or data.download=true"):
        data("mnist", tmp_path / "none", download=False)
    assert not list(tmp_path.iterdir())


def test_incomplete_sets_name_what_is_missing(tmp_path):
    write_mnist(tmp_path)
    (tmp_path / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ZooError, match=r"mnist: t10k-labels-idx1-ubyte missing in"):
        data("mnist", tmp_path)


def test_damaged_files(tmp_path, monkeypatch):
    images = write_mnist(tmp_path) / "MNIST/raw/train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:1000])
    with pytest.raises(ZooError, match=r"mnist in .*MNIST/raw cannot be read \(.*\)\. Delete the folder"):
        data("mnist", tmp_path)
    batch = write_cifar(tmp_path, monkeypatch) / "cifar-10-batches-py/data_batch_2"
    batch.write_bytes(pickle.dumps("something else"))
    with pytest.raises(ZooError, match=r"cifar10 in .* cannot be read .*corrupted"):
        data("cifar10", tmp_path)


def test_files_that_are_not_the_published_ones(tmp_path, monkeypatch):
    raw = write_mnist(tmp_path) / "MNIST/raw"
    for name, array in {
        "train-images-idx3-ubyte": GREY[:N_TRAIN, :9],
        "train-labels-idx1-ubyte": LABELS[: N_TRAIN - 1],
        "t10k-labels-idx1-ubyte": np.full(N_TEST, 200),
        "t10k-images-idx3-ubyte": GREY[:1],
    }.items():
        whole = (raw / name).read_bytes()
        (raw / name).write_bytes(idx(array))
        with pytest.raises(ZooError, match=r"mnist in .*: not the published data set. Its (training|test) file"):
            data("mnist", tmp_path)
        (raw / name).write_bytes(whole)
    assert len(data("mnist", tmp_path).test[0]) == N_TEST


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
def test_a_pickle_that_was_changed_is_not_unpickled(tmp_path, monkeypatch, name):
    """CIFAR-10 is published as pickles; torchvision compares checksums before it opens them."""
    folder, canary = write_cifar(tmp_path, monkeypatch) / "cifar-10-batches-py", tmp_path / "canary"
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(pickle.dumps(Call(os.mkdir, str(canary))))
    with pytest.raises(ZooError, match=r"cifar10 in .* cannot be read .*corrupted|metadata"):
        data("cifar10", tmp_path)
    assert not canary.exists()
    pickle.loads((folder / name).read_bytes())
    assert canary.exists(), "the control"
    (folder / name).write_bytes(whole)
    assert len(data("cifar10", tmp_path).test[0]) == N_TEST


def test_downloading(tmp_path, monkeypatch):
    """The code of torchvision, with a local server."""
    from torchvision.datasets import MNIST

    server = tmp_path / "server"
    write_mnist(server)
    sums = []
    for name, _ in MNIST.resources:
        content = gzip.compress((server / "MNIST/raw" / name.removesuffix(".gz")).read_bytes())
        (server / name).write_bytes(content)
        sums.append((name, hashlib.md5(content).hexdigest()))
    monkeypatch.setattr(MNIST, "resources", sums)
    module = registry.build("data", {"name": "mnist", "path": str(tmp_path / "new"), "batch_size": 8})
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=server)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{web.server_port}/"])
        module.prepare_data()
        web.shutdown()
    module.setup()
    assert np.array_equal(module.test[0][:, 0].numpy(), GREY[N_TRAIN:])


# -- variants ------------------------------------------------------------------------------------------------


def test_threshold(tmp_path):
    module = data("mnist", write_mnist(tmp_path), binarize="threshold")
    assert module.spec.image.levels == 2
    x, _ = next(iter(module.val_dataloader()))
    assert np.array_equal(x[:, 0].numpy(), GREY[60:70][fixed_order(10)[:8]] > 127.5)
    assert torch.cat([x for x, _ in module.train_dataloader()]).unique().tolist() == [0, 1]


def test_dynamic_draws_each_training_batch_anew(tmp_path):
    module = data("mnist", write_mnist(tmp_path), binarize="dynamic")
    assert module.spec.image.levels == 2
    draws = torch.stack(
        [module.fetch(module.train, torch.arange(8), make_generator(i), train=True)[0] for i in range(400)]
    )
    assert draws.unique().tolist() == [0, 1]
    probability = torch.as_tensor(GREY[:8, None] / 255).float()
    error = (draws.mean(0) - probability) / (probability * (1 - probability) / 400).sqrt().clamp(min=1e-3)
    assert error.square().mean() == pytest.approx(1, abs=0.1), "as the binomial distribution spreads"
    assert torch.equal(draws[3], module.fetch(module.train, torch.arange(8), make_generator(3), train=True)[0])
    first, second = (torch.cat([x for x, _ in module.train_dataloader()]) for _ in range(2))
    assert torch.equal(first, second), "the same batch of the same epoch is the same"


def test_static_draws_each_image_once(tmp_path):
    write_mnist(tmp_path)
    one, two = (data("mnist", tmp_path, binarize="static", seed=seed) for seed in (0, 1))
    assert one.spec.image.levels == 2
    assert one.variant == "static"
    assert torch.equal(one.train[0], two.train[0]), "for every seed, so that scores can be compared"
    assert one.train[0].unique().tolist() == [0, 255]
    probability = torch.as_tensor(GREY[:60, None] / 255).float()
    gap = one.train[0].float() / 255 - probability
    spread = (probability * (1 - probability)).mean().sqrt() / gap.numel() ** 0.5
    assert abs(float(gap.mean())) < 4 * float(spread)
    for train in (True, False):
        first, second = (one.fetch(one.train, torch.arange(8), make_generator(i), train=train)[0] for i in (0, 1))
        assert torch.equal(first, second)


def test_dynamic_holds_out_one_draw(tmp_path):
    write_mnist(tmp_path)
    one, two = (data("mnist", tmp_path, binarize="dynamic", seed=seed) for seed in (0, 1))
    for split in ("val", "test"):
        x = getattr(one, split)[0]
        assert x.unique().tolist() == [0, 255]
        assert torch.equal(x, getattr(two, split)[0]), "for every seed, so that scores can be compared"
    again = [torch.cat([x for x, _ in one.val_dataloader()]) for _ in range(2)]
    assert torch.equal(*again)
    expected = GREY[60:90].mean() / 255
    drawn = torch.cat([one.val[0], one.test[0]]).float().mean() / 255
    assert drawn == pytest.approx(expected, abs=0.02)


def test_resizing(tmp_path):
    write_mnist(tmp_path)
    module = data("mnist", tmp_path, size=14)
    means = GREY.reshape(-1, 14, 2, 14, 2).mean((2, 4))
    small = module.test[0][:, 0].float().numpy()
    assert small.shape == (20, 14, 14)
    # the antialiased triangle is wider than the 2x2 mean: close, but smoother
    assert np.corrcoef(small.ravel(), means[70:].ravel())[0, 1] > 0.85
    large = data("mnist", tmp_path, size=[28, 56]).test[0]
    assert large.shape == (20, 1, 28, 56)
    assert np.abs(large.float().mean((1, 2, 3)).numpy() - GREY[70:].mean((1, 2))).max() < 3
    assert torch.equal(data("mnist", tmp_path, size=28).test[0], data("mnist", tmp_path).test[0])
    flat = torchvision.resize(torch.full((3, 1, 28, 28), 200, dtype=torch.uint8), (9, 13))
    assert flat.unique().tolist() == [200]
    parts = torch.as_tensor(GREY[:, None])
    assert torch.equal(torchvision.resize(parts, (9, 9)), torchvision.resize(parts, (9, 9), chunk=7))


def test_flipping(tmp_path, monkeypatch):
    module = data("cifar10", write_cifar(tmp_path, monkeypatch), flip=True)
    rows = torch.arange(60)
    x, _ = module.fetch(module.train, rows, make_generator(0), train=True)
    plain, _ = module.fetch(module.train, rows, make_generator(0), train=False)
    mirrored = torch.tensor([not torch.equal(a, b) for a, b in zip(x, plain, strict=True)])
    assert 15 < mirrored.sum() < 45
    assert torch.equal(x[mirrored], plain[mirrored].flip(-1))
    unflipped = data("cifar10", tmp_path)
    assert torch.equal(unflipped.fetch(unflipped.train, rows, make_generator(0), train=True)[0], plain)


def test_recipes_compose():
    from zoo.config.compose import compose, to_plain

    assert to_plain(compose("data=cifar10").data)["flip"] is True
    assert to_plain(compose("data=mnist", "data.binarize=dynamic", "data.size=[32,48]").data)["size"] == [32, 48]
    assert to_plain(compose("data=fashion_mnist", "data.size=32").data)["size"] == 32
    for name in ("grid25", "ring8", "rings", "moons", "checkerboard"):
        assert to_plain(compose(f"data={name}").data)["name"] == name
    assert to_plain(compose("data=images", "data.path=somewhere").data)["path"] == "somewhere"


# -- real data ---------------------------------------------------------------------------------------------

ROOT = os.environ.get("ZOO_DATA")


@pytest.mark.skipif(
    not ROOT or not Path(ROOT, "MNIST/raw").is_dir(), reason="needs MNIST in the folder that ZOO_DATA names"
)
def test_the_real_mnist(monkeypatch):
    monkeypatch.setattr(torchvision, "N_VAL", 5000)
    module = data("mnist", ROOT, download=False)
    assert [len(s[0]) for s in (module.train, module.val, module.test)] == [55_000, 5_000, 10_000]
    assert module.train[1][:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]
    assert module.test[1][:8].tolist() == [7, 2, 1, 0, 4, 1, 4, 9]
    every = torch.cat([module.train[0], module.val[0]])
    assert every.float().mean() / 255 == pytest.approx(0.1307, abs=1e-4)  # the figure everybody normalises with
    assert (every.float() / 255).std() == pytest.approx(0.3081, abs=1e-4)
