"""Attacks by untrusted recipes, runs and checkpoints: run code, write files, exhaust memory.

Each entry tries to touch the canary file, to write its secret somewhere, or to allocate terabytes. `test_attacks.py`
runs them all; each must be refused in one sentence.
"""

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# -- recipes: X/model/evil.yaml, run as `python train.py --config-dir X model=evil` ----------------------------

_HEAD = "# @package _global_\ndefaults:\n  - /model/ae@model\n  - _self_\n"


def _bomb(depth: int = 12) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, depth)]
    return "\n".join(lines)


RECIPES: dict[str, str] = {  # {canary} is a file that must not appear
    "callback": _HEAD + "hydra: {{callbacks: {{x: {{_target_: os.mkdir, path: '{canary}'}}}}}}",
    "callback by alias": _HEAD + "t: &t {{_target_: os.mkdir, path: '{canary}'}}\nhydra: {{callbacks: {{x: *t}}}}",
    "callback that loads a pickle": _HEAD
    + "hydra: {{callbacks: {{x: {{_target_: torch.load, f: '{canary}.pkl', weights_only: false}}}}}}",
    "callback that Hydra's own list lets through": _HEAD
    + "hydra: {{callbacks: {{x: {{_target_: numpy.save, file: '{canary}', arr: [1]}}}}}}",
    "launcher": _HEAD + "hydra: {{launcher: {{_target_: os.mkdir}}}}",
    "sweeper": _HEAD + "hydra: {{mode: MULTIRUN, sweeper: {{_target_: os.mkdir}}}}",
    "target among a sweep's values": _HEAD
    + "hydra: {{mode: MULTIRUN, sweeper: {{params: {{seed: {{_target_: os.mkdir, path: '{canary}'}}}}}}}}",
    "log handler": _HEAD + "hydra: {{job_logging: {{handlers: {{x: {{(): os.mkdir, path: '{canary}'}}}}}}}}",
    "log handler of hydra": _HEAD + "hydra: {{hydra_logging: {{handlers: {{x: {{(): os.mkdir, path: '{canary}'}}}}}}}}",
    "log file": _HEAD + "hydra: {{job_logging: {{handlers: {{file: {{filename: '{canary}'}}}}}}}}",
    "environment": _HEAD + "hydra: {{job: {{env_set: {{PATH: '{canary}', LD_PRELOAD: '{canary}.so'}}}}}}",
    "environment copied": _HEAD + "hydra: {{job: {{env_copy: [SECRET]}}}}\nseed: '${{hydra:job.env_set.SECRET}}'",
    "secret in a setting": "defaults: [ae, _self_]\nlatent_dim: ${{oc.env:SECRET}}",
    "secret behind a decoder": "defaults: [ae, _self_]\nlatent_dim: ${{oc.decode:${{oc.env:SECRET}}}}",
    "secret by a computed name": "defaults: [ae, _self_]\nx: SEC\nlatent_dim: ${{oc.env:${{.x}}RET}}",
    "target as a model": "_target_: os.mkdir\npath: '{canary}'",
    "target as a network": "defaults: [ae, _self_]\nencoder: {{_target_: os.mkdir, path: '{canary}'}}",
    "dotted name as a model": "name: os.mkdir",
    "dotted name as a network": "defaults: [ae, _self_]\nencoder: {{name: os.mkdir}}",
    "target for the trainer": _HEAD + "trainer: {{plugins: {{_target_: os.mkdir, path: '{canary}'}}}}",
    "target for the data": _HEAD + "data: {{_target_: os.mkdir, path: '{canary}'}}",
    "target of a new group": _HEAD + "extra: {{inner: [{{_target_: os.mkdir}}]}}",
    "object tag": "defaults: [ae, _self_]\nlr: !!python/object/apply:os.mkdir ['{canary}']",
    "name tag": "defaults: [ae, _self_]\nlr: !!python/name:os.mkdir ''",
    "billion laughs": "defaults: [ae, _self_]\n" + _bomb(),
    "endless alias": "defaults: [ae, _self_]\nx: &x [*x]",
    "ten thousand levels": "defaults: [ae, _self_]\nx: " + "[" * 10_000 + "]" * 10_000,
    "a megabyte": "# " + "x" * 2**20,
    "not UTF-8": "defaults: [ae, _self_]\nx: \udcff",
    "a terabyte of weights": "defaults: [ae, _self_]\nlatent_dim: 1000000000000",
    "more weights than a word counts": "defaults: [ae, _self_]\nlatent_dim: 100000000000000000000000000",
    "a billion layers": "defaults: [gpt, _self_]\nn_layers: 1000000000",
    "a billion hidden layers": "defaults: [ae, override encoder: mlp, _self_]\nencoder: {{depth: 1000000000}}",
}

# -- runs: X/overrides.yaml, run as `python train.py resume=X` --------------------------------------------------

RUNS: dict[str, list[Any]] = {
    "config folder": ["--config-dir={canary}", "model=evil"],
    "abbreviated flag": ["--config-d={canary}"],
    "flag of one letter": ["-cd={canary}"],
    "pickled rerun": ["--experimental-rerun={canary}.pkl"],
    "sweep": ["-m", "seed=1,2"],
    "folder of the run": ["model=ae", "hydra.run.dir={canary}"],
    "added folder": ["++hydra.run.dir={canary}"],
    "launcher": ["hydra/launcher=evil"],
    "callback": ["+hydra.callbacks.x={{_target_:os.mkdir,path:'{canary}'}}"],
    "search path": ["hydra.searchpath=[pkg://antigravity]"],
    "hydra without logging": ["~hydra.job_logging"],
    "group put into hydra": ["+model@hydra.callbacks=ae"],
    "secret": ["model=ae", "data=images", "data.path=${{oc.env:SECRET}}"],
    "secret by a nested name": ["data.path=${{oc.${{x}}:SECRET}}"],
    "target": ["model=ae", "+trainer.plugins={{_target_:os.mkdir,path:'{canary}'}}"],
    "dotted model": ["model=ae", "model.name=os.mkdir"],
    "a terabyte of weights": ["model=ae", "model.latent_dim=1000000000000"],
    "a terabyte of pixels": ["model=ae", "data=images", "data.path=.", "data.size=[1000000000,1000000000]"],
    "numbers": [1, 2],
    "mappings": [{"model": "ae"}],
    "model elsewhere": ["model=../../../../etc/passwd"],
    "absolute model": ["model=/etc/passwd"],
}

# -- checkpoints ------------------------------------------------------------------------------------------------


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def _saved(change: Callable[[dict[str, Any], Path], Any]) -> Callable[[dict[str, Any], Path, Path], None]:
    """An attack that changes a good checkpoint and saves it."""

    def write(good: dict[str, Any], path: Path, canary: Path) -> None:
        torch.save(change(good, canary), path)

    return write


def _noted(**changes: Any) -> Callable[[dict[str, Any], Path, Path], None]:
    return _saved(lambda good, _: {**good, "zoo": {**good["zoo"], **changes}})


def _described(**changes: Any) -> Callable[[dict[str, Any], Path, Path], None]:
    return _saved(lambda good, _: {**good, "zoo": {**good["zoo"], "spec": {**good["zoo"]["spec"], **changes}}})


def _spaced(part: str = "x", **changes: Any) -> Callable[[dict[str, Any], Path, Path], None]:
    """Change the space of samples, or of the condition, in the spec."""

    def changed(good: dict[str, Any]) -> dict[str, Any]:
        spec = good["zoo"]["spec"]
        return {**good, "zoo": {**good["zoo"], "spec": {**spec, part: {**(spec[part] or {}), **changes}}}}

    return _saved(lambda good, _: changed(good))


def _set(**changes: Any) -> Callable[[dict[str, Any], Path, Path], None]:
    return _saved(lambda good, _: {**good, "hyper_parameters": {**good["hyper_parameters"], **changes}})


def _weighed(change: Callable[[dict[str, torch.Tensor]], dict[str, Any]]) -> Callable[..., None]:
    return _saved(lambda good, _: {**good, "state_dict": change(dict(good["state_dict"]))})


def _bare_pickle(good: dict[str, Any], path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps({**good, "x": Call(os.mkdir, str(canary))}))


def _old_pickle(good: dict[str, Any], path: Path, canary: Path) -> None:
    torch.save({**good, "x": Call(os.mkdir, str(canary))}, path, _use_new_zipfile_serialization=False)


def _old_tar(good: dict[str, Any], path: Path, canary: Path) -> None:
    raw = pickle.dumps(Call(os.mkdir, str(canary)))
    with tarfile.open(path, "w") as tar:
        for name in ("sys_info", "pickle", "tensors", "storages", "../../escaped"):
            entry = tarfile.TarInfo(name)
            entry.size = len(raw)
            tar.addfile(entry, io.BytesIO(raw))


def _repacked(change: Callable[[str, bytes], bytes], how: int = zipfile.ZIP_STORED) -> Callable[..., None]:
    def write(good: dict[str, Any], path: Path, canary: Path) -> None:
        buffer = io.BytesIO()
        torch.save(good, buffer)
        with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", how) as new:
            for entry in old.infolist():
                new.writestr(entry.filename, change(entry.filename, old.read(entry)))

    return write


def _repeated_values(depth: int = 40) -> list[Any]:
    value: list[Any] = [0]
    for _ in range(depth):
        value = [value, value]
    return value


def _deep_values(depth: int = 300) -> list[Any]:
    value: list[Any] = [0]
    for _ in range(depth):
        value = [value]
    return value


CHECKPOINTS: dict[str, Callable[[dict[str, Any], Path, Path], None]] = {  # (good checkpoint, where, canary) -> None
    "call at the top": _saved(lambda good, canary: Call(os.mkdir, str(canary))),
    "call beside the weights": _saved(lambda good, canary: {**good, "x": Call(os.mkdir, str(canary))}),
    "call by eval": _saved(lambda good, canary: {**good, "x": Call(eval, f"__import__('os').mkdir({str(canary)!r})")}),
    "call in the settings": _saved(
        lambda good, canary: {**good, "hyper_parameters": {"latent_dim": Call(os.mkdir, str(canary))}}
    ),
    "call in a callback's state": _saved(
        lambda good, canary: {**good, "callbacks": {"Keeper": {"best": Call(os.mkdir, str(canary))}}}
    ),
    "call that loads again": _saved(lambda good, canary: {**good, "x": Call(torch.load, f"{canary}.pkl")}),
    "call among the weights": _saved(lambda good, canary: {**good, "state_dict": {"w": Call(os.mkdir, str(canary))}}),
    "whole module": _saved(lambda good, canary: torch.nn.Linear(2, 2)),
    "module as a setting": _saved(lambda good, canary: {**good, "hyper_parameters": {"encoder": torch.nn.ReLU()}}),
    "path object": _saved(lambda good, canary: {**good, "hyper_parameters": {"encoder": canary}}),
    "plain pickle": _bare_pickle,
    "format before 1.6": _old_pickle,
    "format before 0.1": _old_tar,
    "compressed": _repacked(lambda name, raw: raw, zipfile.ZIP_DEFLATED),
    "bomb": _repacked(lambda name, raw: raw + bytes(2**24), zipfile.ZIP_DEFLATED),
    "storage that lies about its size": _repacked(
        lambda name, raw: raw.replace(b"K\x10", b"J\xff\xff\xff\x7f") if name.endswith("data.pkl") else raw
    ),
    "empty table of contents": _repacked(lambda name, raw: b"" if name.endswith("data.pkl") else raw),
    "text": lambda good, path, canary: path.write_text("not a checkpoint") and None,
    "nothing": lambda good, path, canary: path.touch(),
    "a tensor": _saved(lambda good, canary: torch.zeros(3)),
    "no note": _saved(lambda good, canary: {k: v for k, v in good.items() if k != "zoo"}),
    "no weights": _saved(lambda good, canary: {k: v for k, v in good.items() if k != "state_dict"}),
    "note of another type": _saved(lambda good, canary: {**good, "zoo": [1]}),
    "dotted model": _noted(model="os.mkdir"),
    "model of another kind": _noted(model="conv"),
    "model in another folder": _noted(model="../../etc/passwd"),
    "model by colours": _noted(model="\x1b[31m[link=http://x]\nok"),
    "dotted network": _set(encoder="os.mkdir"),
    "network by target": _set(encoder={"_target_": "os.mkdir"}),
    "dotted network with settings": _set(encoder={"name": "os.mkdir", "path": "x"}),
    "settings that are not there": _set(secret=1),
    "a terabyte of latents": _set(latent_dim=10**12),
    "more latents than a word counts": _set(latent_dim=10**30),
    "a petabyte of mixtures": _set(n_components=10**15),
    "latents of text": _set(latent_dim="x"),
    "a billion layers": _set(encoder={"name": "mlp", "depth": 10**9}),
    "wide layers": _set(encoder={"name": "mlp", "width": 10**12}),
    "settings that unfold": _set(encoder=_repeated_values()),
    "settings in three hundred levels": _set(encoder=_deep_values()),
    "a terabyte of pixels": _spaced(height=10**9, width=10**9),
    "negative pixels": _spaced(height=-8),
    "no pixels": _described(x={"space": "image"}),
    "pixels of text": _spaced(height="abc"),
    "space by path": _spaced(space="os.mkdir"),
    "space of text": _described(x={"space": "tokens", "length": 8, "vocab_size": 10**15, "tokenizer": "{}"}),
    "classes of text": _spaced("condition", space="label", n_classes="many"),
    "name that is a list": _described(name=["x"]),
    "a weight too many": _weighed(lambda w: {**w, "x": torch.zeros(1)}),
    "a weight too few": _weighed(lambda w: dict(list(w.items())[1:])),
    "a weight of another shape": _weighed(lambda w: {k: torch.zeros(7, 7) for k in w}),
    "a weight of text": _weighed(lambda w: {**w, next(iter(w)): "x"}),
    "a weight without numbers": _weighed(lambda w: {**w, next(iter(w)): torch.zeros(1).expand(10**6, 10**6)}),
    "a weight without a device": _weighed(lambda w: {**w, next(iter(w)): torch.empty(10**6, 10**6, device="meta")}),
    "a sparse weight": _weighed(
        lambda w: {**w, next(iter(w)): torch.sparse_coo_tensor(torch.zeros(2, 0).long(), [], (10**6, 10**6))}
    ),
}

# -- the tokenizer inside of a checkpoint -------------------------------------------------------------------------

TOKENIZERS: dict[str, str] = {
    "dotted": '{"name": "os.system", "state": "touch x"}',
    "not JSON": "{",
    "no name": "{}",
    "a list": "[]",
    "a number of a million digits": '{"name": "char", "state": ' + "1" * 1_000_000 + "}",
    "a hundred thousand levels": "[" * 100_000,
    "characters that are a number": '{"name": "char", "state": 7}',
    "the same character twice": '{"name": "char", "state": "aa"}',
    "half a character": '{"name": "word", "state": ["\\ud800"]}',
    "words that are numbers": '{"name": "word", "state": [1, 2]}',
    "words that are a text": '{"name": "word", "state": "ab"}',
    "merges without a library": '{"name": "bpe", "state": "{}"}',
    "merges that are no JSON": '{"name": "bpe", "state": "("}',
    "merges that number from below": (
        '{"name": "bpe", "state": "{\\"model\\": {\\"vocab\\": {\\"a\\": -1}, \\"merges\\": []}}"}'
    ),
    "merges that number far": (
        '{"name": "bpe", "state": "{\\"model\\": {\\"vocab\\": {\\"a\\": 1000000000000}, \\"merges\\": []}}"}'
    ),
    "merges of what is not there": (
        '{"name": "bpe", "state": "{\\"model\\": {\\"vocab\\": {\\"a\\": 0}, \\"merges\\": [[\\"x\\", \\"y\\"]]}}"}'
    ),
}
