"""Order of the data; a resumed run gets the batches of an uninterrupted one."""

import pytest
import pytorch_lightning as L
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, OnExceptionCheckpoint

from zoo.core.errors import ZooError
from zoo.core.spaces import Vector
from zoo.core.spec import DataSpec
from zoo.data.base import DataModule
from zoo.data.loader import ShuffledSampler, TensorLoader, fixed_order, make_generator

# -- Order ---------------------------------------------------------------------------------------------------


def test_an_epoch_covers_every_sample_once():
    order = ShuffledSampler(101, seed=3)
    for epoch in range(3):
        assert sorted(order.epoch(epoch).tolist()) == list(range(101))
        assert order.epoch(epoch).tolist() != list(range(101))


def test_the_order_depends_on_seed_and_epoch_alone():
    def epoch(seed, number):
        return ShuffledSampler(50, seed).epoch(number).tolist()

    torch.manual_seed(1)
    first = epoch(0, 0)
    torch.manual_seed(2)
    assert epoch(0, 0) == first
    assert epoch(0, 1) != first
    assert epoch(1, 0) != first
    assert epoch(1, 0) != epoch(0, 1), "as it would be with seed + epoch"


@pytest.mark.parametrize(("size", "world"), [(50, 2), (53, 4), (7, 7)])
def test_processes_share_an_epoch_without_overlap(size, world):
    orders = [ShuffledSampler(size, 0, rank, world) for rank in range(world)]
    parts = [order.epoch(1).tolist() for order in orders]
    assert {len(part) for part in parts} == {size // world} == {len(order) for order in orders}
    together = [i for part in parts for i in part]
    assert len(set(together)) == len(together) == size // world * world


def test_held_out_data_keeps_its_order_in_every_epoch_and_loses_nothing():
    assert ShuffledSampler(10).epoch(0).tolist() == ShuffledSampler(10).epoch(5).tolist() == list(range(10))
    orders = [ShuffledSampler(11, rank=rank, world=3) for rank in range(3)]
    parts = [order.epoch(0).tolist() for order in orders]
    assert [len(part) for part in parts] == [len(order) for order in orders] == [4, 4, 3]
    assert sorted(i for part in parts for i in part) == list(range(11))


# -- TensorLoader --------------------------------------------------------------------------------------------


def noisy(indices, generator):
    """Return the indices, and a number that depends on the generator."""
    return indices, torch.rand(len(indices), generator=generator)


def batches(loader):
    return [(indices.tolist(), noise.tolist()) for indices, noise in loader]


def test_drop_last_leaves_out_only_the_incomplete_batch():
    for size, full, short in ((50, 12, 13), (48, 12, 12), (3, 0, 1)):
        for drop, expected in ((True, full), (False, short)):
            loader = TensorLoader(noisy, ShuffledSampler(size, 0), 4, drop_last=drop)
            assert len(loader) == len(list(loader)) == expected


def test_each_iteration_is_the_next_epoch():
    loader = TensorLoader(noisy, ShuffledSampler(50, 0), 4, drop_last=True)
    for epoch in range(3):
        seen = [i for indices, _ in batches(loader) for i in indices]
        assert seen == ShuffledSampler(50, 0).epoch(epoch).tolist()[:48]


def test_a_start_batch_gives_the_same_batches_and_randomness():
    loader = TensorLoader(noisy, ShuffledSampler(50, 0), 4, drop_last=True)
    stream = [batch for _ in range(3) for batch in batches(loader)]
    for taken in (5, 12, 17, 24):
        later = TensorLoader(noisy, ShuffledSampler(50, 0), 4, drop_last=True, start_batch=taken)
        assert batches(later) == stream[taken : taken + 12]


@pytest.mark.parametrize("prefetch", [0, 2])
def test_after_an_early_exit_it_continues_with_the_next_batch(prefetch):
    stream = batches(TensorLoader(noisy, ShuffledSampler(50, 0), 4, drop_last=True))
    loader = TensorLoader(noisy, ShuffledSampler(50, 0), 4, drop_last=True, prefetch=prefetch)
    iter(loader)  # Lightning makes iterators that it never uses
    early = iter(loader)
    assert [next(early).x.tolist() for _ in range(3)] == [indices for indices, _ in stream[:3]]
    assert next(iter(loader)).x.tolist() == stream[3][0]


def test_held_out_data_restarts_with_the_same_randomness():
    loader = TensorLoader(noisy, ShuffledSampler(50), 4, drop_last=False)
    assert batches(loader) == batches(loader)
    next(iter(loader))
    assert batches(loader)[0][0] == [0, 1, 2, 3]


def test_each_batch_of_each_process_has_different_randomness():
    noise = [
        tuple(draws)
        for seed in (0, 1)
        for rank in (0, 1)
        for loader in [TensorLoader(noisy, ShuffledSampler(40, seed, rank, world=2), 4, drop_last=True)]
        for _ in range(2)  # epochs
        for _, draws in batches(loader)
    ]
    assert len(set(noise)) == len(noise)


@pytest.mark.parametrize("prefetch", [1, 3, 100])
def test_prefetching_changes_nothing(prefetch):
    plain = batches(TensorLoader(noisy, ShuffledSampler(50, 0), 4, drop_last=False))
    assert batches(TensorLoader(noisy, ShuffledSampler(50, 0), 4, drop_last=False, prefetch=prefetch)) == plain


def test_prefetching_raises_errors_and_can_be_left_early():
    def fails(indices, generator):
        raise ZooError("a picture is gone.")

    with pytest.raises(ZooError, match="a picture is gone"):
        list(TensorLoader(fails, ShuffledSampler(50, 0), 4, drop_last=False, prefetch=2))
    for _ in TensorLoader(noisy, ShuffledSampler(50, 0), 4, drop_last=False, prefetch=2):
        break


@pytest.mark.parametrize(
    ("size", "world", "batch"),
    [(181, 2, 90), (181, 2, 45), (11, 3, 4), (13, 3, 4), (8, 4, 3), (5, 2, 2), (97, 8, 4)],
)
def test_every_process_validates_on_equally_many_batches(size, world, batch):
    loaders = [
        TensorLoader(noisy, ShuffledSampler(size, rank=rank, world=world), batch, drop_last=False)
        for rank in range(world)
    ]
    parts = [[indices for indices, _ in loader] for loader in loaders]
    assert len({len(part) for part in parts}) == 1, "or distributed validation would wait forever"
    assert [len(loader) for loader in loaders] == [len(part) for part in parts]
    assert all(0 < len(indices) <= batch for part in parts for indices in part)
    assert sorted(int(i) for part in parts for indices in part for i in indices) == list(range(size))


def test_single_samples_are_repeated_where_there_are_too_few():
    for size in (2, 5):
        parts = [
            list(TensorLoader(noisy, ShuffledSampler(size, rank=rank, world=3), 1, drop_last=False))
            for rank in range(3)
        ]
        assert len({len(part) for part in parts}) == 1
        assert {int(i) for part in parts for indices, _ in part for i in indices} == set(range(size))


def test_generators_of_neighbouring_numbers_differ():
    first = {
        torch.rand(1, generator=make_generator(*numbers)).item()
        for numbers in ((0,), (1,), (0, 0), (0, 1), (1, 0), (-1,))
    }
    assert len(first) == 6
    a, b = torch.randn(10_000, generator=make_generator(0, 1)), torch.randn(10_000, generator=make_generator(0, 2))
    assert torch.corrcoef(torch.stack([a, b]))[0, 1].abs() < 0.04  # four standard errors


# -- a real training, stopped and taken up
# -----------------------------------------------------------------------------

N, BATCH = 22, 4  # five batches an epoch, two samples left over


class Numbers(DataModule):
    """Sample i is the number i, plus noise drawn for each batch like an augmentation."""

    def __init__(self, seed=0, batch_size=BATCH):
        super().__init__(batch_size, seed)

    @property
    def spec(self):
        return DataSpec(Vector(1))

    def load(self):
        x = torch.arange(N).float()[:, None]
        self.train, self.val, self.test = ((x, torch.zeros(N)),) * 3

    def fetch(self, split, indices, generator, *, train):
        x, y = split[0][indices], split[1][indices]
        return (x + 0.1 * torch.rand(x.shape, generator=generator) if train else x), y


class Recorder(L.LightningModule):
    """Model that records every batch, with one or two optimizers."""

    def __init__(self, players=1):
        super().__init__()
        self.players, self.seen, self.held_out = players, [], []
        self.automatic_optimization = players == 1
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, batch_idx):
        self.seen.append(batch.x.flatten().tolist())
        loss = (self.weight * batch.x).mean()
        if self.players == 1:
            return loss
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            self.manual_backward((self.weight * batch.x).mean())
            optimizer.step()
        return None

    def validation_step(self, batch, batch_idx):
        self.held_out.append(batch.x.flatten().tolist())

    def configure_optimizers(self):
        optimizers = [torch.optim.SGD(self.parameters(), lr=1e-3) for _ in range(self.players)]
        return optimizers[0] if self.players == 1 else optimizers


class StopAfter(Callback):
    """Callback that raises inside a training batch."""

    def __init__(self, batches):
        self.batches = batches

    def on_before_zero_grad(self, trainer, pl_module, optimizer):
        if len(pl_module.seen) > self.batches:
            raise RuntimeError("power cut.")


def fit(tmp_path, n_batches, *, ckpt=None, callbacks=(), players=1, seed=0, **options):
    torch.manual_seed(len(str(ckpt)))  # the global state must not matter
    model = Recorder(players)
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        max_steps=n_batches * players,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        enable_checkpointing=any(isinstance(c, (ModelCheckpoint, OnExceptionCheckpoint)) for c in callbacks),
        num_sanity_val_steps=0,
        **{"val_check_interval": 3, "check_val_every_n_epoch": None, **options},
    )
    trainer.fit(model, datamodule=Numbers(seed), ckpt_path=ckpt, weights_only=False)
    return model.seen, trainer


TOTAL = 17  # three epochs and two batches

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*not resumable"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint"),
    pytest.mark.filterwarnings("ignore:.*every_n_train_steps, but no pre-optimization"),
    pytest.mark.filterwarnings("ignore:.*num_workers"),
    pytest.mark.filterwarnings("ignore:.*val_dataloader"),
]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    seen, _ = fit(tmp_path_factory.mktemp("straight"), TOTAL)
    return seen


def test_lightning_uses_every_sample_once_per_epoch(straight):
    assert len(straight) == TOTAL
    for epoch in range(3):
        samples = [int(x) for batch in straight[epoch * 5 : epoch * 5 + 5] for x in batch]
        assert samples == ShuffledSampler(N, 0).epoch(epoch).tolist()[:20]


def test_validation_sees_everything_in_one_fixed_order_every_time(tmp_path):
    _, trainer = fit(tmp_path, 7)
    held_out = [x for batch in trainer.lightning_module.held_out for x in batch]
    assert held_out == fixed_order(N).tolist() * 2


@pytest.mark.parametrize("players", [1, 2])
@pytest.mark.parametrize("stop", [1, 3, 4, 5, 6, 9, 10, 12, 15])
def test_saved_after_any_batch(tmp_path, straight, stop, players):
    """Within an epoch, before and after the last batch, after a validation; one or two optimizers."""
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=players * stop, save_top_k=-1)
    before, _ = fit(tmp_path, TOTAL, callbacks=[saver], players=players)
    assert before == straight
    after, _ = fit(tmp_path, TOTAL, ckpt=tmp_path / f"step={players * stop}.ckpt", players=players)
    assert after == straight[stop:]


@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_saved_after_a_validation(tmp_path, straight, every):
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=False)
    fit(tmp_path, TOTAL, callbacks=[saver], val_check_interval=every)
    for stop in range(every, TOTAL, every):
        after, _ = fit(tmp_path, TOTAL, ckpt=tmp_path / f"step={stop}.ckpt", val_check_interval=every)
        assert after == straight[stop:]


@pytest.mark.parametrize("clock", [(3, None), (5, None), (1.0, 1)])
def test_saved_at_the_end_of_epochs(tmp_path, straight, clock):
    """Lightning 2.6 counts one epoch too many after this, and may begin with an epoch of one batch."""
    clock = dict(zip(("val_check_interval", "check_val_every_n_epoch"), clock, strict=True))
    saver = ModelCheckpoint(tmp_path, "{step}", every_n_epochs=1, save_top_k=-1, save_on_train_epoch_end=True)
    fit(tmp_path, TOTAL, callbacks=[saver], **clock)
    for stop in (5, 10, 15):
        after, trainer = fit(tmp_path, TOTAL, ckpt=tmp_path / f"step={stop}.ckpt", **clock)
        assert after == straight[stop:]
        assert trainer.global_step == TOTAL


@pytest.mark.parametrize("stop", [4, 5, 7, 10])
def test_trained_longer_after_it_ended(tmp_path, straight, stop):
    seen, trainer = fit(tmp_path, stop)
    assert seen == straight[:stop]
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    after, _ = fit(tmp_path, TOTAL, ckpt=tmp_path / "end.ckpt")
    assert after == straight[stop:]


@pytest.mark.parametrize("stop", [3, 4, 5, 8])
def test_saved_by_an_exception_inside_a_batch(tmp_path, straight, stop):
    """The interrupted batch was not trained on, so it is repeated."""
    saver = OnExceptionCheckpoint(tmp_path, "broken")
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tmp_path, TOTAL, callbacks=[saver, StopAfter(stop)])
    middle, trainer = fit(tmp_path, stop + 4, ckpt=tmp_path / "broken.ckpt")
    assert middle == straight[stop : stop + 4]
    trainer.save_checkpoint(tmp_path / "again.ckpt")
    after, _ = fit(tmp_path, TOTAL, ckpt=tmp_path / "again.ckpt")
    assert after == straight[stop + 4 :]


def test_stopped_twice(tmp_path, straight):
    _, trainer = fit(tmp_path, 7)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    middle, trainer = fit(tmp_path, 13, ckpt=tmp_path / "a.ckpt")
    trainer.save_checkpoint(tmp_path / "b.ckpt")
    after, _ = fit(tmp_path, TOTAL, ckpt=tmp_path / "b.ckpt")
    assert middle + after == straight[7:]


@pytest.mark.parametrize("limit", [3, 0.6])
def test_limited_epochs_walk_through_all_data_too(tmp_path, straight, limit):
    seen, _ = fit(tmp_path, 11, limit_train_batches=limit)
    assert seen == straight[:11]
    _, trainer = fit(tmp_path, 7, limit_train_batches=limit)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    after, _ = fit(tmp_path, 11, ckpt=tmp_path / "end.ckpt", limit_train_batches=limit)
    assert after == straight[7:11]


def test_another_seed_is_another_order(tmp_path, straight):
    assert fit(tmp_path, 5, seed=1)[0] != straight[:5]


def test_a_batch_larger_than_the_training_set_is_refused():
    with pytest.raises(ZooError, match=r"batch_size=23: larger .*\(22 samples\)\. Set data.batch_size=22 or less"):
        Numbers(batch_size=23).setup()
    Numbers(batch_size=22).setup()
