"""Configuration of transformer blocks."""

from dataclasses import dataclass
from typing import Literal

from zoo.core.errors import ZooError

NormKind = Literal["layernorm", "rmsnorm_no_gain", "rmsnorm"]
MLPKind = Literal["gelu", "gelu_tanh", "relu", "relu_squared", "swiglu", "geglu"]


@dataclass(frozen=True)
class TransformerConfig:
    """Configuration shared by the blocks of a stack.

    Args:
        d_model: model width, a multiple of n_heads.
        n_heads: attention heads.
        n_kv_heads: key and value heads, each shared by n_heads / n_kv_heads queries (grouped-query attention, Ainslie
            et al. 2023, 2305.13245); 0 is n_heads.
        d_head: head width; 0 is d_model / n_heads.
        d_ff: hidden width of an MLP; 0 is 4 d_model, or two thirds of it for the gated kinds.
        norm: see `make_norm`.
        norm_eps: added to the variance; 0 is torch's default.
        norm_place: "before" (pre-norm: before every branch and at the end of the stack), or "after" (post-norm: after
            the embedding and every residual sum).
        mlp: see `MLP`.
        bias: add biases to linear layers.
        qk_norm: normalise queries and keys by their RMS (Henry et al. 2020, 2010.04245).
        softcap: replace scores by c tanh(score / c); 0 is off (Gemma 2, 2408.00118).
        scale: factor of the scores; 0 is d_head^-1/2.
        dropout: probability for embeddings, attention weights and branches.

    Raises:
        ZooError: n_heads does not divide d_model, or n_kv_heads does not divide n_heads.
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
                f"d_model={self.d_model}: must divide into n_heads={self.n_heads} heads. "
                f"Choose a multiple of {2 * self.n_heads}, or other n_heads."
            )
        if self.n_heads % self.kv_heads:
            raise ZooError(
                f"n_kv_heads={self.kv_heads}: must divide n_heads={self.n_heads}. Choose a divisor, or 0 for one each."
            )

    @property
    def head(self) -> int:
        """Head width."""
        return self.d_head or self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads."""
        return self.n_kv_heads or self.n_heads
