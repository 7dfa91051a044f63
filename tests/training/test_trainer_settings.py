"""Settings of the trainer: every key takes its type, and nothing else."""

import inspect

import pytest
import pytorch_lightning as L
from omegaconf import OmegaConf

import zoo
from zoo.config.recipes import CONF
from zoo.training.trainer_settings import OWN, REPLACED, check_settings

KEYS = sorted({*inspect.signature(L.Trainer.__init__).parameters, *OWN} - {"self"})


@pytest.mark.parametrize("key", KEYS)
def test_values_of_another_type_are_refused(key: str) -> None:
    texts = ("accelerator", "strategy", "devices", "compile", "model_registry", "gradient_clip_algorithm")
    wrong = 1.5 if key in texts else "abc"
    with pytest.raises(zoo.ConfigError, match=f"trainer.{key}={wrong}: "):
        check_settings({key: wrong})


@pytest.mark.parametrize("key", sorted(REPLACED))
def test_what_the_zoo_sets_itself_is_refused_with_the_way(key: str) -> None:
    assert key in KEYS
    with pytest.raises(zoo.ConfigError, match=r"not a setting of this trainer\. [A-Z]"):
        check_settings({key: 1})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max_step", 3, "did you mean 'max_steps'"),
        ("precision", "16-mixd", "Did you mean 16-mixed"),
        ("precision", 8, "a wrong value"),
        ("fast_loop", 1, "Give true or false"),
        ("deterministic", 1, "a wrong value"),
        ("accumulate_grad_batches", 0, "at least 1"),
        ("max_steps", None, "at least 1"),
        ("max_steps", True, "at least 1"),
        ("limit_val_batches", 0, "at least 1"),
        ("gradient_clip_val", -1, "at least 0"),
        ("gradient_clip_val", float("nan"), "not a finite number"),
        ("gradient_clip_val", float("inf"), "not a finite number"),
        ("num_nodes", None, "Give an integer"),
        ("num_nodes", 2**63, "more than 64 bits"),
        ("max_steps", 10**20, "more than 64 bits"),
        ("max_steps", 1e23, "at least 1"),
        ("on_nonfinite", "skipp", "Did you mean skip"),
    ],
)
def test_wrong_values_are_refused(key: str, value: object, message: str) -> None:
    with pytest.raises(zoo.ConfigError, match=message):
        check_settings({key: value})


def built_in() -> list[dict]:
    """The trainers in `conf/trainer`, without their references to recipes."""
    found = [OmegaConf.to_container(OmegaConf.load(file)) for file in sorted((CONF / "trainer").glob("*.yaml"))]
    return [{k: v for k, v in each.items() if k != "defaults" and "${" not in str(v)} for each in found]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": 32, "devices": [0, 1], "deterministic": "warn", "gradient_clip_val": 1, "limit_val_batches": 0.5},
        {"precision": None, "devices": "auto", "benchmark": None, "strategy": L.strategies.DDPStrategy()},
        *built_in(),
    ],
)
def test_valid_values_pass(settings: dict) -> None:
    check_settings(settings)
