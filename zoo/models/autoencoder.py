"""placeholder"""
from torch.nn import functional as F
from zoo.models.base import GenerativeModel
from zoo.registry import register, Encoder, Decoder
from zoo.spec import PositiveInt, Positive
import torch

@register("model", "ae")
class Autoencoder(GenerativeModel):
    """Autoencoder."""
    family = "autoencoder"
    def __init__(self, spec, *, latent_dim: PositiveInt = 16, lr: Positive = 1e-3, encoder: Encoder = "auto", decoder: Decoder = "auto"):
        super().__init__(spec)
        self.latent_dim=latent_dim; self.lr=lr
        self.encoder = self.part("encoder", "encoder", spec.shape, latent_dim)
        self.decoder = self.part("decoder", "decoder", latent_dim, spec.shape)
    def loss(self, batch):
        x, _ = batch
        r = self.decoder(self.encoder(x))
        return {"loss": (r - x).square().flatten(1).sum(1).mean()}
    def sample(self, n, *, condition=None, generator=None, **options):
        return self.decoder(self.noise(n, self.latent_dim, generator=generator)).clamp(0,1)
    def configure_optimizers(self):
        return self.scheduled(torch.optim.Adam(self.parameters(), lr=self.lr))
