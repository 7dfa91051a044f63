"""Integers of a weights file are stored in few bytes, and come back with their own type."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

import zoo
from zoo.io.weights_file import INTEGERS, narrowed, pack, unpack

NOTE = {"model": "ae", "spec": {}, "hyper_parameters": {}}


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (0, 255, torch.uint8), (0, 256, torch.int16), (-1, 127, torch.int8), (-1, 128, torch.int16),
        (-128, -128, torch.int8), (-32768, 32767, torch.int16), (-32769, 0, torch.int32), (0, 2**31 - 1, torch.int32),
        (0, 2**31, torch.int64), (-(2**63), 2**63 - 1, torch.int64),
    ],
)  # fmt: skip
def test_the_smallest_type_that_holds_both_ends(low: int, high: int, kind: torch.dtype) -> None:
    x = torch.tensor([low, high])
    assert narrowed(x).dtype == kind
    assert torch.equal(narrowed(x).long(), x)
    smaller = [k for k in INTEGERS.values() if k.itemsize < kind.itemsize]
    assert all(not torch.equal(x.to(k).long(), x) for k in smaller), "no smaller type holds them: the control"


def test_other_tensors_stay_as_they_are() -> None:
    for x in (torch.tensor([1.5]), torch.tensor([True]), torch.empty(0, dtype=torch.int64)):
        assert narrowed(x) is x


def test_a_file_returns_the_types_that_it_was_given(tmp_path: Path) -> None:
    state = {"a": torch.arange(100), "b": torch.randn(3), "c": torch.tensor(7, dtype=torch.int32)}
    state["d"] = state["a"]
    sizes = []
    for narrow in (True, False):
        file = tmp_path / f"{narrow}.safetensors"
        file.write_bytes(pack(state, NOTE, narrow=narrow))
        found = unpack(file)["state_dict"]
        assert all(torch.equal(found[name], x) and found[name].dtype == x.dtype for name, x in state.items())
        with safe_open(file, "pt") as inside:
            sizes.append(inside.get_tensor("a").element_size())
    assert sizes == [1, 8]


@pytest.mark.parametrize("wrong", [["a"], {"b": "torch.int64"}, {"a": "torch.bool"}, {"a": ["torch.int64"]}])
def test_a_damaged_note_is_an_error(wrong: object, tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(save({"a": torch.zeros(2)}, {"zoo": json.dumps({**NOTE, "tied": {}, "integers": wrong})}))
    with pytest.raises(zoo.CheckpointError, match="types of its integers"):
        unpack(file)
