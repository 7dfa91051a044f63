"""Tiny models for the page, some of them trained, and links to each of their tasks."""

import torch

import zoo
from tests.serve.servers import language_model, masked_model, picture_model, text_spec
from zoo.core.spaces import Audio
from zoo.serve.pool import Source

PAGE_TASKS = (
    "model=digits&task=sample", "model=digits&task=latents", "model=digits&task=interpolate", "model=digits&task=edit",
    "model=noise&task=steps&list=1", "model=noise&task=denoising&n=1", "model=moons&task=sample",
    "model=letters&task=continue", "model=letters&task=chat", "model=masks&task=fill",
    "model=digits&task=sample&compare=gan", "model=rows&task=sample&n=3", "model=notes&task=continue",
    "model=words&task=similarity", "model=tones&n=1",
)  # fmt: skip


def trained(name: str, data: str, **settings):
    """A model after a few batches."""
    recipe = zoo.create_model(name, data=data, **settings)
    return zoo.fit(recipe, zoo.create_data(data), max_steps=5, progress=False)


def sound_model():
    """Stands for a model of sound."""
    model = picture_model()

    class Tones(type(model)):
        def sample(self, n, *, condition=None, generator=None):
            return torch.sin(torch.arange(800) * 0.3).expand(n, 1, 800)

    model.__class__ = Tones
    model.spec = zoo.DataSpec(Audio(1, 800, 8000), name="tones")
    model.__dict__["abilities"] = {"sample": "sample"}
    return model


def make_page_models() -> dict[str, Source]:
    """Sources by name."""
    made = {
        "digits": trained("vae", "digits", conditional=True, latent_dim=20),
        "gan": zoo.create_model("gan", data="digits").eval(),
        "noise": trained("diffusion", "digits", denoiser={"name": "mlp"}),
        "moons": zoo.create_model("vae", data="moons").eval(),
        "letters": language_model(),
        "letters-2": language_model(1),
        "masks": masked_model(),
        "tones": sound_model(),
    }
    table = zoo.create_data("synthetic_table")
    made["rows"] = zoo.fit(zoo.create_model("tvae", data=table), table, max_steps=2, progress=False)
    made["notes"] = zoo.create_model("ngram", data="synthetic_chorales", order=2).eval()
    made["words"] = zoo.create_model("word2vec", data=zoo.DataSpec(text_spec().x, name="letters"), dim=4).eval()
    chats = ("letters", "letters-2")  # as if their runs had a prompt template
    return {
        name: Source(name, lambda model=model: model, "Q: {text}\nA:" if name in chats else "")
        for name, model in made.items()
    }
