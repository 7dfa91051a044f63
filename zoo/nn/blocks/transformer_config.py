"""Configuration of transformer blocks."""

from dataclasses import dataclass
from typing import Literal

from zoo.core.errors import ZooError

NormKind = Literal["layernorm", "rmsnorm_no_gain", "rmsnorm", "rmsnorm_zero_centered"]
NormPlace = Literal["before", "after", "both"]
MLPKind = Literal["gelu", "gelu_tanh", "silu", "relu", "relu_squared", "swiglu", "geglu"]


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
        norm_place: where norms stand. Pre-norm, "before", has them before every branch and at the end of the stack.
            Post-norm, "after", has them after the embedding and every sum. Gemma 2 has "both" around every branch.
        mlp: see `MLP`.
        bias: add biases to linear layers.
        qkv_bias: add biases to queries, keys and values, also without `bias` (Qwen 2, 2407.10671).
        qk_norm: normalise queries and keys by their RMS (Henry et al. 2020, 2010.04245).
        qk_norm_gain: normalise them by `norm` of the head width instead, with its gain (Qwen 3, 2505.09388).
        softcap: replace scores by c tanh(score / c); 0 is off (Gemma 2, 2408.00118).
        scale: factor of the scores; 0 is d_head^-1/2.
        dropout: probability for embeddings, attention weights and branches.
        parallel_residual: the MLP reads what attention reads, and not its result (GPT-NeoX, 2204.06745).
        n_experts: MLPs per block, of which a router chooses some per token; 0 is one MLP without a router.
        n_active_experts: MLPs that a token passes through.
        gradient_checkpointing: keep only the input of each block for the backward pass, which computes the rest again.

    Raises:
        ZooError: n_heads does not divide d_model; n_kv_heads does not divide n_heads; post-norm with parallel
            branches; or more active experts than experts.
    """

    d_model: int
    n_heads: int
    n_kv_heads: int = 0
    d_head: int = 0
    d_ff: int = 0
    norm: NormKind = "rmsnorm_no_gain"
    norm_eps: float = 0.0
    norm_place: NormPlace = "before"
    mlp: MLPKind = "relu_squared"
    bias: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    qk_norm_gain: bool = False
    softcap: float = 0.0
    scale: float = 0.0
    dropout: float = 0.0
    parallel_residual: bool = False
    n_experts: int = 0
    n_active_experts: int = 2
    gradient_checkpointing: bool = False

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
        if self.parallel_residual and self.norm_place == "after":
            raise ZooError("norm_place=after: not possible with parallel_residual=true. Choose before or both.")
        if self.n_experts and self.n_active_experts > self.n_experts:
            raise ZooError(
                f"n_active_experts={self.n_active_experts}: more than n_experts={self.n_experts}. "
                "Choose at most as many."
            )

    @property
    def head(self) -> int:
        """Head width."""
        return self.d_head or self.d_model // self.n_heads

    @property
    def kv_heads(self) -> int:
        """Number of key and value heads."""
        return self.n_kv_heads or self.n_heads
