import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from zoo.nn.blocks import lstm


@pytest.mark.parametrize("packed", [False, True])
def test_without_bfloat16_autocast_computes_in_float32(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lstm, "has_bfloat16", lambda: False)
    ours, theirs = lstm.LSTM(4, 6, batch_first=True), nn.LSTM(4, 6, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    x, state = torch.randn(3, 5, 4), (torch.randn(1, 3, 6), torch.randn(1, 3, 6))
    given = pack_padded_sequence(x, torch.tensor([5, 2, 4]), batch_first=True, enforce_sorted=False) if packed else x
    expected, last = theirs(given, state)
    with torch.autocast("cpu", torch.bfloat16):
        found, after = ours(given.to(torch.bfloat16) if not packed else given, state)
        rough = ours.weight_ih_l0 @ x[0].T
    assert rough.dtype == torch.bfloat16, "autocast is on again"
    assert found.data.dtype == torch.float32
    torch.testing.assert_close(found.data, expected.data, rtol=0, atol=0.02)
    torch.testing.assert_close(after, last, rtol=0, atol=0.02)
    if packed:
        assert torch.equal(found.data, expected.data)


def test_without_autocast_it_is_torchs() -> None:
    ours, theirs = lstm.LSTM(4, 6), nn.LSTM(4, 6)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(5, 3, 4)
    assert torch.equal(ours(x)[0], theirs(x)[0])
