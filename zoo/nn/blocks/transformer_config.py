"""Sizes and choices of a transformer block."""

from dataclasses import dataclass
from typing import Literal

from zoo.core.errors import ZooError

NormKind = Literal["layernorm", "rmsnorm_no_gain", "rmsnorm"]
MLPKind = Literal["gelu", "gelu_tanh", "relu", "relu_squared", "swiglu", "geglu"]


@dataclass(frozen=True)
class TransformerConfig:
    """What the blocks of a stack have in common.

    Args:
        d_model: width, a multiple of n_heads.
        n_heads: attention heads.
        n_kv_heads: heads of keys and values, each shared by a group of n_heads / n_kv_heads queries (Ainslie et al.
            2023, 2305.13245); 0 is n_heads.
        d_head: width of a head; 0 is d_model / n_heads.
        d_ff: hidden width of an MLP; 0 is 4 d_model, or two thirds of it for the gated kinds.
        norm: see `make_norm`.
        norm_eps: added to the variance; 0 is torch's own choice.
        norm_place: before every branch and at the end of the stack, or after every branch's sum and the embedding.
        mlp: see `MLP`.
        bias: do linear maps have one?
        qk_norm: divide queries and keys by their RMS, which bounds their products (Henry et al. 2020, 2010.04245).
        softcap: c tanh(score / c) instead of a score; 0 is off (Gemma 2, 2408.00118).
        scale: of the products of queries and keys; 0 is d_head^-1/2.
        dropout: of embeddings, attention weights and branches.

    Raises:
        ZooError: heads that do not divide the width, or groups that do not divide the heads.
    """

    d_model: int
    n_heads: int
    n_kv_heads: int = 0
    d_head: int = 0
    d_ff: int = 0
    norm: NormKind = "rmsnorm_no_gain"
    norm_eps: float = 0.0
    norm_place: Literal["before", "after"] = "before"
    mlp: MLPKind = "relu_squared"
    bias: bool = False
    qk_norm: bool = False
    softcap: float = 0.0
    scale: float = 0.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.d_head and self.d_model % self.n_heads:
            raise ZooError(
                f"d_model={self.d_model} does not divide into n_heads={self.n_heads} heads: choose d_model a multiple "
                f"of {2 * self.n_heads}, or other n_heads."
            )
        if self.n_heads % self.kv_heads:
            raise ZooError(
                f"n_heads={self.n_heads} queries cannot share n_kv_heads={self.kv_heads} keys evenly: choose "
                "n_kv_heads that divides n_heads, or 0 for one each."
            )

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.d_head or self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.n_kv_heads or self.n_heads
