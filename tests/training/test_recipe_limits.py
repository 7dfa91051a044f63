"""Adaptation of recipes to the size of the training set."""

import pytest

from zoo.config.compose import compose
from zoo.core.errors import ConfigError
from zoo.training.train import build_data, limit_epochs


def limited(tmp_path, text: str, *overrides: str):
    path = tmp_path / "text.txt"
    path.write_text(text)
    cfg = compose("model=gpt", "data=text", f"data.path={path}", *overrides)
    data = build_data(cfg)
    limit_epochs(cfg.model.training, len(data.train[0]) / data.batch_size)
    return cfg, data


def words(n: int) -> str:
    return " ".join(f"{number * 7919 % 10007:x}" for number in range(n))


def test_a_small_text_is_read_twelve_times(tmp_path) -> None:
    """The recipe's 680 batches would learn it by heart; a length that the user gives stays."""
    cfg, data = limited(tmp_path, words(2000))
    seen = cfg.trainer.max_steps * data.batch_size / len(data.train[0])
    assert 11 < seen < 13
    assert cfg.trainer.max_steps < 680
    assert 3 <= cfg.trainer.max_steps / cfg.trainer.val_check_interval <= 5
    cfg, _ = limited(tmp_path, words(2000), "trainer.max_steps=500")
    assert cfg.trainer.max_steps == 500


@pytest.mark.parametrize(("epochs", "problem"), [(-1, "negative"), (10**400, "more than 64 bits")])
def test_a_limit_that_is_none_is_refused(epochs: int, problem: str) -> None:
    cfg = compose("model=gpt")
    cfg.model.training.max_epochs = epochs
    with pytest.raises(ConfigError, match=f"model.training.max_epochs={epochs}: {problem}"):
        limit_epochs(cfg.model.training, 60.0)


def test_a_larger_text_has_the_whole_recipe() -> None:
    cfg = compose("model=gpt")
    limit_epochs(cfg.model.training, 60.0)
    assert cfg.trainer.max_steps == 680
    assert cfg.trainer.val_check_interval == 170
