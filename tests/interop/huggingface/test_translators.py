"""BART, mBART and Marian with tokenizers, against the `transformers` library."""

import pytest
import torch
from tokenizers import processors

import zoo
from tests.formats import difference, drawn
from tests.interop.huggingface.test_config import rewrite
from tests.interop.huggingface.test_encoders import ROBERTA, TEXTS, tokenizer
from zoo.core.spaces import ABSENT
from zoo.data.batch import Batch
from zoo.interop.huggingface import save

AROUND = {"bart": "<s> $A </s>", "mbart": "$A </s> <unk>", "marian": "$A </s>"}  # a source


@pytest.fixture(params=AROUND)
def folder(request, tmp_path):
    """A model of `transformers`, its tokenizer, and their folder."""
    theirs, reader = drawn(request.param), tokenizer("roberta")
    ends = [(name, reader.convert_tokens_to_ids(name)) for name in ROBERTA]
    reader._tokenizer.post_processor = processors.TemplateProcessing(AROUND[request.param], None, ends)
    theirs.save_pretrained(tmp_path)
    reader.save_pretrained(tmp_path)
    return theirs, reader, tmp_path


@torch.no_grad()
def test_greedy_texts_are_equal(folder):
    theirs, reader, path = folder
    ours = zoo.load(path)
    done = ours.generate(TEXTS, temperature=0.0, max_new_tokens=9)
    for text, got in zip(TEXTS, done, strict=True):
        source = reader(text, return_tensors="pt", truncation=False, padding=False)["input_ids"]
        want = theirs.generate(source, do_sample=False, num_beams=1, max_new_tokens=9, forced_eos_token_id=None)[0, 1:]
        assert got.tokens == [token for token in want.tolist() if token != 2]
        assert got.text.strip() == ours.tokenizer.decode(want.tolist())


def test_sources_of_data_are_enclosed_as_prompts(folder):
    _, reader, path = folder
    ours = zoo.load(path)
    sources = [[*ours.tokenizer.encode(text), ours.end] for text in TEXTS]  # as data has them
    want = [reader(text, truncation=False, padding=False)["input_ids"] for text in TEXTS]
    width = max(map(len, sources))
    x = torch.tensor([row + [ABSENT] * (width - len(row)) for row in sources])
    got = ours.read(Batch(x, x)).x
    assert [[token for token in row if token != ABSENT] for row in got.tolist()] == want
    assert torch.isfinite(ours.loss(Batch(x, x))["loss"])


def test_old_files_without_a_bias_of_logits(tmp_path):
    theirs = drawn("bart")
    theirs.final_logits_bias.zero_()
    theirs.save_pretrained(tmp_path)
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "model.safetensors")
    del weights["final_logits_bias"]
    save_file(weights, tmp_path / "model.safetensors")
    rewrite(tmp_path, {"normalize_before": False, "add_bias_logits": False}, ("decoder_start_token_id",))
    ours = zoo.load(tmp_path)
    assert ours.begin == 2
    assert difference(ours, theirs)[0] < 1e-4


def test_marian_with_trained_positions_is_refused(tmp_path):
    drawn("marian").save_pretrained(tmp_path)
    ours = zoo.load(tmp_path)
    with torch.no_grad():
        ours.net.decoder.position_embedding.weight[3, 1] += 1e-6
    with pytest.raises(zoo.ZooError, match="the positions are not sinusoids, because they were trained"):
        save.save(ours, tmp_path / "out", "marian")
