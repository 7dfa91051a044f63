"""Private names of other libraries: Lightning's in one file, the rest listed with the reason."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import pytorch_lightning as L
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import nn

ZOO = Path(__file__).parents[2] / "zoo"
LIGHTNING = ZOO / "training" / "fast_loop.py"  # guarded by the release; test_fast_loop.py trains with the guard off
CLASSES = (L.LightningModule, L.Callback, L.LightningDataModule, TensorBoardLogger, CSVLogger)
ALLOWED = {  # not Lightning's, without a public equivalent
    "torch": {
        "_foreach_copy_", "_foreach_lerp", "_foreach_lerp_", "_foreach_mul_", "_foreach_add_", "_foreach_sign_",
        "_foreach_norm", "_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_mkldnn_bf16_supported", "_C",
        "_are_functorch_transforms_active", "_buffers", "_cdata", "_subclasses",
        "_iterator", "_python_dispatch", "_overloadpacket", "_forward_hooks", "_forward_pre_hooks",
        "_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_backward",
        "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward",
    },
    "os": {"_exit"},
    "tensorboard": {"_get_file_writer"},
    "torchmetrics": {"_logger"},
    "hydra and omegaconf": {"_internal", "_get_root", "_get_node", "_create_interpolation_map"},
    "named tuples": {"_replace"},
}  # fmt: skip
SOURCES = {file: file.read_text(encoding="utf-8") for file in sorted(ZOO.rglob("*.py")) if file != LIGHTNING}


@cache
def nodes(source: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(source)))


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined(source: str) -> Iterator[str]:
    """Yield the private names that a file defines."""
    for node in nodes(source):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.Name(id=name, ctx=ast.Store())
            ):
                yield name
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


def used(source: str) -> Iterator[str]:
    """Yield the private names that a file reads from objects or imports from other packages."""
    for node in nodes(source):
        match node:
            case ast.Attribute(attr=name) if private(name):
                yield name
            case ast.Import(names=names):
                yield from (part for alias in names for part in alias.name.split(".") if private(part))
            case ast.ImportFrom(module=str(module), names=names) if not module.startswith("zoo"):
                yield from filter(private, [*module.split("."), *(alias.name for alias in names)])


@cache
def own() -> set[str]:
    """Names that the zoo defines; read by the first test, and not while tests are collected."""
    return {name for source in SOURCES.values() for name in defined(source)}


def foreign(source: str) -> set[str]:
    """Private names in a file that neither the zoo defines nor the list above allows."""
    return set(used(source)) - own() - set().union(*ALLOWED.values())


def test_one_file_touches_private_names_of_lightning() -> None:
    found = {file.relative_to(ZOO).as_posix(): foreign(source) for file, source in SOURCES.items()}
    assert {file: names for file, names in found.items() if names} == {}


def test_nothing_overrides_a_private_name_of_lightning() -> None:
    theirs = {name for cls in CLASSES for name in dir(cls) if private(name)} - set(dir(nn.Module))
    assert own() & theirs == set()


@pytest.mark.parametrize(
    "line",
    [
        "trainer._logger_connector.x",
        "self._trainer",
        "loop._batches_that_stepped = 1",
        "from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop",
        "from lightning_fabric._private import x",
        "import lightning_fabric._private",
    ],
)
def test_a_private_name_is_found(line: str) -> None:
    assert len(foreign(line)) == 1
    assert not foreign("self.trainer.callback_metrics; self.__dict__; from zoo.a import _b")


def test_the_list_is_short() -> None:
    """Each entry is in use."""
    seen = {name for source in SOURCES.values() for name in used(source)}
    assert set().union(*ALLOWED.values()) <= seen
