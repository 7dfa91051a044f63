"""Folder of images with captions."""

import logging
from collections import Counter
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, Literal

import torch

from zoo.core import registry
from zoo.core.counted import counted
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import NonNegative, PositiveInt
from zoo.core.spaces import ABSENT, Tokens
from zoo.core.spec import DataSpec
from zoo.data.image import decode
from zoo.data.image.captions import read_captions, unpacked
from zoo.data.image.folder import Images
from zoo.data.image.listing import SPLITS, FolderListing, Share, assign_splits, list_files
from zoo.data.image.torchvision import Size
from zoo.data.listing import log_rank0
from zoo.data.text.datamodule import TokenizerChoice
from zoo.data.text.tokenizers.base import Tokenizer, dumps

log = logging.getLogger(__name__)


@register("data", "captioned_images")
class CaptionedImages(Images):
    """Your own images with captions: data=captioned_images data.path=DIR. Captions are in metadata.jsonl or .txt files.

    `metadata.jsonl` (or `.csv`) has the fields file_name and text, as for ImageFolder of `datasets`. Otherwise each
    picture has a text file of its name beside it, as in WebDataset: dog.jpg and dog.txt. Each line is a caption, and a
    picture with several is shown with each of them. `path` may be a WebDataset archive, which is unpacked below the
    cache folder. Splits and sizes are those of `images`: captions of a picture are never in two splits.

    Args:
        path: folder of images, or a `.tar` archive.
        tokenizer: of captions, fitted to those of training.
        max_tokens: longer captions are cut, and counted in a warning.
        batch_size: samples per batch.
        seed: seed of the training order and of random transformations.
        size: height and width of all images; None is the most frequent size.
        channels: 1 (grey), 3 (colour) or 4 (with transparency); None is colour unless all images are grey.
        flip: mirror training images left to right with probability 1/2; not for captions that name left and right.
        val_fraction: share of the images for validation, without a val folder.
        test_fraction: share of the images for testing, without a test folder.
        memory_gb: images are decoded once if they fit into this, else for every batch.
        on_error: "raise" rejects a folder with images that are unreadable or without caption, and names them; "skip"
            leaves them out.

    Raises:
        DataError: see `images`; a wrong line of captions, by its number and file; or images without caption.
    """

    def __init__(
        self,
        *,
        path: str,
        tokenizer: TokenizerChoice = "word",
        max_tokens: PositiveInt = 64,
        batch_size: PositiveInt = 64,
        seed: int = 0,
        size: Size = None,
        channels: Literal[1, 3, 4] | None = None,
        flip: bool = False,
        val_fraction: Share = 0.1,
        test_fraction: Share = 0.1,
        memory_gb: NonNegative = 4.0,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        settings: dict[str, Any] = {
            "path": path, "batch_size": batch_size, "seed": seed, "size": size, "channels": channels, "flip": flip,
            "val_fraction": val_fraction, "test_fraction": test_fraction, "memory_gb": memory_gb, "on_error": on_error,
        }  # fmt: skip
        super().__init__(labels=False, **settings)
        self.tokenizer: Tokenizer = registry.build("tokenizer", tokenizer, where="data.tokenizer")
        self.max_tokens = max_tokens
        self.captions: list[list[str]] = []  # of each file of the listing

    @property
    def spec(self) -> DataSpec:
        """Images given a caption; reads names and captions, and headers if necessary."""
        images, length = super().spec.x, self.length
        text = Tokens(length, self.tokenizer.vocab_size, dumps(self.tokenizer))
        return DataSpec(images, text, name="captioned_images")

    @cached_property
    def listing(self) -> FolderListing:
        """Files with captions, and their splits; fits the tokenizer to the training captions."""
        if self.path.is_file() and self.path.suffix.lower() == ".tar":
            self.path = unpacked(self.path)
        found = list_files(self.path)
        captions, used = read_captions(self.path, found.files)
        if bare := [file for file in found.files if file not in captions]:
            what = f"data.path={self.path}: no caption for {len(bare):,} of {len(found.files):,} images, as {bare[0]}"
            if self.on_error == "raise":
                raise DataError(
                    f"{what}. Add a row to metadata.jsonl (file_name, text) or write {PurePosixPath(bare[0]).stem}.txt "
                    f"beside it, or leave them out with data.on_error=skip."
                )
            log_rank0(log.warning, f"{what}; left out")
        found.files = [file for file in found.files if file in captions]
        found.others -= Counter(PurePosixPath(file).suffix.lower() for file in used)
        listing = assign_splits(self.path, found.files, found.others, False, self.fractions)
        found.report(f"data.path={self.path}", f"images ({' '.join(sorted(decode.SUFFIXES))}) or their captions")
        self.captions = [captions[file] for file in listing.files]
        self.tokenizer.fit([text for i in listing.splits["train"] for text in self.captions[i]])
        return listing

    @cached_property
    def length(self) -> int:
        """Tokens of the longest caption, at most `max_tokens`."""
        _ = self.listing
        every = [(len(self.tokenizer.encode(text)), text) for texts in self.captions for text in texts]
        if long := [(n, text) for n, text in every if n > self.max_tokens]:
            log_rank0(
                log.warning,
                f"data.max_tokens={self.max_tokens}: {counted(len(long), 'caption')} of {len(every):,} cut; the "
                f"longest has {max(n for n, _ in long):,} tokens.",
            )
        return min(max(n for n, _ in every), self.max_tokens)

    def load(self) -> None:
        """Decode or check the images, and pair each with its captions."""
        super().load()
        texts = [text for texts in self.captions for text in texts]
        tokens = torch.full((len(texts), self.length), ABSENT)
        for row, text in zip(tokens, texts, strict=True):
            ids = self.tokenizer.encode(text)[: self.length]
            row[: len(ids)] = torch.tensor(ids, dtype=torch.int64)
        numbers = torch.tensor([len(texts) for texts in self.captions])
        first = numbers.cumsum(0) - numbers  # row of the first caption of each file
        for name in SPLITS:
            files, _ = getattr(self, name)
            which = files.repeat_interleave(numbers[files])
            place = torch.cat([torch.arange(int(n)) for n in numbers[files]])
            setattr(self, name, (which, tokens[first[which] + place]))
