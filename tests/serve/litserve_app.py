"""A LitServe server of a language model in Hugging Face's format, for `rivals.py`: `litserve_app.py FOLDER PORT`.

Requests that wait are one batch. Their greedy texts are decoded together, with a cache of keys and values. The answers
are streams in OpenAI's format.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

import litserve as ls
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH = 32  # requests
WAIT = 0.005  # seconds that a request waits for others
END = "data: [DONE]\n\n"


class Completions(ls.LitAPI):
    """Greedy continuations of prompts.

    Args:
        folder: of the model.
        options: of LitAPI.
    """

    def __init__(self, folder: str, **options: Any) -> None:
        super().__init__(**options)
        self.folder = folder

    def setup(self, device: str) -> None:
        """Load the model."""
        self.tokenizer = AutoTokenizer.from_pretrained(self.folder, padding_side="left")
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token or self.tokenizer.unk_token
        self.model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()

    def decode_request(self, request: dict[str, Any]) -> tuple[str, int]:
        """Prompt, and number of tokens."""
        return request["prompt"], request.get("max_tokens", 16)

    def batch(self, inputs: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """A batch is a list."""
        return inputs

    def unbatch(self, output: Iterator[list[int | None]]) -> Iterator[list[int | None]]:
        """Steps are lists already."""
        yield from output

    @torch.no_grad()
    def predict(self, inputs: list[tuple[str, int]]) -> Iterator[list[int | None]]:
        """The next token of each row, in turn; None behind its last."""
        prompts, limits = zip(*inputs, strict=True)
        given = self.tokenizer(list(prompts), return_tensors="pt", padding=len(set(map(len, prompts))) > 1)
        tokens, mask, cache = given["input_ids"], given["attention_mask"], None
        end, over = self.model.generation_config.eos_token_id, [False] * len(inputs)
        for n in range(max(limits)):
            found = self.model(tokens, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache, tokens = found.past_key_values, found.logits[:, -1].argmax(-1, keepdim=True)
            mask = torch.cat([mask, torch.ones_like(tokens)], 1)
            over = [o or n >= limit for o, limit in zip(over, limits, strict=True)]
            yield [None if o else token for o, token in zip(over, tokens[:, 0].tolist(), strict=True)]
            over = [o or token == end for o, token in zip(over, tokens[:, 0].tolist(), strict=True)]
            if all(over):
                return

    def encode_response(self, output: Iterator[list[int | None]]) -> Any:  # FastAPI reads the annotation
        """Lists of an event for the next token of each row, and of the last events, with the usage."""
        counts: list[int] = []
        for step in output:
            counts = counts or [0] * len(step)
            counts = [n + (token is not None) for n, token in zip(counts, step, strict=True)]
            texts = ["" if token is None else self.tokenizer.decode([token]) for token in step]
            yield [event(text) if token is not None else "" for text, token in zip(texts, step, strict=True)]
        yield [event("", {"completion_tokens": n}) + END for n in counts]


def event(text: str, usage: dict[str, int] | None = None) -> str:
    """A server-sent event."""
    body: dict[str, Any] = {"choices": [{"index": 0, "text": text}], "usage": usage}
    return f"data: {json.dumps(body, separators=(',', ':'))}\n\n"


if __name__ == "__main__":
    place, port = sys.argv[1:]
    api = Completions(place, max_batch_size=BATCH, batch_timeout=WAIT, api_path="/v1/completions", stream=True)
    ls.LitServer(api, accelerator="cpu", timeout=False).run(
        host="127.0.0.1", port=int(port), generate_client_file=False
    )
