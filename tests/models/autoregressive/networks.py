"""Small causal networks for tests, one of each built-in kind."""

import torch

SMALL = {"name": "transformer", "d_model": 16, "n_layers": 2, "n_heads": 2}
RECURRENT = {"d_model": 16, "n_layers": 2}
MAMBA = {"name": "mamba2", **RECURRENT, "d_head": 8, "d_state": 4}
BACKBONES = [SMALL, *({"name": name, **RECURRENT} for name in ("rnn", "lstm", "gru")), MAMBA]


def shaken(model, std=0.4):
    """Random weights everywhere: at initialisation the branches are zero."""
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.normal_(std=std)
    return model.eval()
