"""Published models: model cards, stores with versions and tags, Hugging Face repositories, pretrained weights."""
