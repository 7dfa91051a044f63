"""The pool of generated images: its statistics, and what it gives back."""

import pytest
import torch

from zoo.nn.blocks.image_pool import ImagePool

SIZE, BATCH = 20, 4


def numbered(first: int, n: int = BATCH) -> torch.Tensor:
    """Images (n, 1, 2, 2) whose pixels are their number."""
    return torch.arange(first, first + n, dtype=torch.float32).view(n, 1, 1, 1).expand(n, 1, 2, 2)


def shares(pool: ImagePool, rounds: int) -> tuple[float, float]:
    """Share of images that a full pool returns as they are, and mean age of the others in batches."""
    for number in range(SIZE // BATCH):
        assert torch.equal(pool.exchange(numbered(number * BATCH)), numbered(number * BATCH)), "until it is full"
    same, ages = 0, []
    for number in range(SIZE // BATCH, SIZE // BATCH + rounds):
        given = numbered(number * BATCH)
        got = pool.exchange(given)[:, 0, 0, 0].long()
        kept = got == given[:, 0, 0, 0].long()
        same += int(kept.sum())
        ages += (number - got[~kept] // BATCH).tolist()
    return same / (rounds * BATCH), sum(ages) / max(len(ages), 1)


def test_half_of_the_images_are_exchanged_for_older_ones() -> None:
    """A stored image leaves a batch with probability B/2 in SIZE: its age is geometric, of mean 2 SIZE / B."""
    rounds = 4_000
    same, age = shares(ImagePool(SIZE, (1, 2, 2)), rounds)
    assert same == pytest.approx(0.5, abs=5 * 0.5 / (rounds * BATCH) ** 0.5)
    mean = 2 * SIZE / BATCH
    assert age == pytest.approx(mean, abs=5 * mean / (rounds * BATCH / 2) ** 0.5)


def test_a_pool_that_always_exchanges_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: without the coin no image is returned as it is."""
    pool, draw = ImagePool(SIZE, (1, 2, 2)), torch.rand
    monkeypatch.setattr(torch, "rand", lambda n, **given: draw(n, **given) * (0.4 if n == BATCH else 1))
    assert shares(pool, 50)[0] == 0


def test_no_image_is_lost_or_doubled() -> None:
    """Each image is in the pool, or has come out once."""
    pool, out, n = ImagePool(SIZE, (1, 2, 2)), [], 0
    for _ in range(60):
        got = pool.exchange(numbered(n))
        out += got[:, 0, 0, 0].tolist() if n >= SIZE else []
        n += BATCH
    inside = pool.images[:SIZE, 0, 0, 0].tolist()
    assert len(set(inside)) == SIZE
    returned = set(out)
    # An image that is not stored comes out at once; one that is stored comes out when it is replaced.
    assert returned | set(inside) == {float(i) for i in range(n)}
    assert len(out) == len(returned)


def test_the_content_is_saved_and_an_empty_pool_does_nothing() -> None:
    pool, again = ImagePool(3, (1, 2, 2)), ImagePool(3, (1, 2, 2))
    pool.exchange(numbered(1, 2))
    assert int(pool.stored) == 2
    again.load_state_dict(pool.state_dict())
    assert torch.equal(again.images, pool.images)
    assert torch.equal(ImagePool(0, (1, 2, 2)).exchange(numbered(5)), numbered(5))
    many = pool.exchange(numbered(10, 8))
    assert many.shape == (8, 1, 2, 2), "more images than places"
    assert torch.equal(many[3:], numbered(13, 5))
