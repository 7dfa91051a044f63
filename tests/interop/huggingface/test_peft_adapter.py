"""Adapter folders, in and out, against the library `peft`; nothing is downloaded."""

import json

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import zoo
from tests.interop.huggingface.test_load import VOCABULARY, gpt2, llama
from zoo.cli.main import main
from zoo.core.spaces import Tokens
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.bpe import BPE
from zoo.interop.huggingface import peft_adapter, save
from zoo.nn.blocks.lora import adapters

TOKENS = torch.randint(0, VOCABULARY, (2, 9), generator=torch.Generator().manual_seed(0))
FEW = ["trainer=smoke", "data.batch_size=16", "trainer.max_steps=2", "model.n_eval_prompts=2"]


def made(base, folder, **settings):
    """Save a base model, and an adapter whose matrices are away from their start; return peft's model."""
    torch.manual_seed(0)
    base.save_pretrained(folder / "base")
    model = peft.get_peft_model(base, peft.LoraConfig(r=3, lora_alpha=9, **settings)).eval()
    for name, p in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(p, mean=1.0 if "magnitude" in name else 0.0, std=0.2)
    model.save_pretrained(folder)
    edit(folder, base_model_name_or_path="base")
    return model


def edit(folder, **values):
    file = folder / peft_adapter.CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@torch.no_grad()
def difference(theirs, ours) -> float:
    return float((theirs(TOKENS).logits - ours.net(TOKENS)).abs().max())


@pytest.mark.parametrize(
    ("base", "settings"),
    [
        (llama, {"target_modules": ["q_proj", "down_proj"]}),
        (llama, {"target_modules": "all-linear", "use_dora": True, "use_rslora": True}),
        (gpt2, {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
        (gpt2, {"target_modules": ["c_proj"], "fan_in_fan_out": True, "use_dora": True}),
    ],
)
def test_an_adapter_of_peft_loads_with_its_base(base, settings, tmp_path) -> None:
    theirs = made(base(), tmp_path, **settings)
    assert difference(theirs, zoo.load(tmp_path)) < 1e-4
    assert difference(theirs, zoo.load(tmp_path / "base")) > 1e-2, "negative control: the base alone"
    edit(tmp_path, use_rslora=not settings.get("use_rslora", False))
    assert difference(theirs, zoo.load(tmp_path)) > 1e-3, "negative control: another scale"


def test_other_adapters_are_refused(tmp_path) -> None:
    made(llama(), tmp_path, target_modules=["q_proj"])
    good = json.loads((tmp_path / peft_adapter.CONFIG).read_text())
    for change, said in [
        ({"base_model_name_or_path": "nowhere"}, r"base_model_name_or_path='nowhere' is not a folder"),
        ({"peft_type": "IA3"}, r"peft_type='IA3' is not supported"),
        ({"alpha_pattern": {"q_proj": 3}}, r"alpha_pattern=\{'q_proj': 3\} is not supported"),
        ({"bias": "all"}, r"bias='all' is not supported"),
        ({"lora_alpha": None}, "lora_alpha is missing"),
        ({"use_dora": True}, "weights of .* are missing"),
    ]:
        edit(tmp_path, **good | change)
        with pytest.raises(zoo.ZooError, match=said):
            zoo.load(tmp_path)
    edit(tmp_path, **good)
    tensors = load_file(tmp_path / peft_adapter.WEIGHTS)
    save_file({k.replace("q_proj", "x_proj"): v for k, v in tensors.items()}, tmp_path / peft_adapter.WEIGHTS)
    with pytest.raises(zoo.ZooError, match="its base model does not have"):
        zoo.load(tmp_path)


@pytest.mark.parametrize(
    "other", [[], ["model.lora_dora=true", "model.lora_rslora=true", "model.lora_targets=[out,up]"]]
)
def test_an_adapter_trained_here_loads_in_peft(other, tmp_path, cli, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = BPE(min_frequency=1, vocab_size=280).fit(["1+2=3\n4-5=-1\n"])
    spec = zoo.DataSpec(Tokens(24, tokenizer.vocab_size, dumps(tokenizer)))
    given = zoo.create_model("llama", data=spec, backbone={"d_model": 16, "n_layers": 1, "n_heads": 2})
    for p in given.parameters():  # branches begin at zero, where norms of rows are zero
        torch.nn.init.normal_(p, std=0.2)
    save.save(given, "given")
    told = cli(
        "model=sft", "model.lora_rank=2", "init_from=given", *other, *FEW, "model.optimizer.lr=0.1", "hydra.run.dir=run"
    )
    assert told.code == 0, told.err
    told = cli("export", "run", "--format", "peft", entry=main)
    assert told.code == 0, told.err
    folder = tmp_path / "run" / "export" / "peft"
    assert json.loads((folder / peft_adapter.CONFIG).read_text())["base_model_name_or_path"] == str(tmp_path / "given")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "given")
    run = zoo.load("run")
    tokens = torch.arange(9)[None]
    with torch.no_grad():
        plain, wanted = base(tokens).logits, run.net(tokens)
        found = peft.PeftModel.from_pretrained(base, folder)(tokens).logits
    assert (found - wanted).abs().max() < 1e-4
    assert (plain - wanted).abs().max() > 1e-3, "negative control: without the adapter"
    assert len(load_file(folder / peft_adapter.WEIGHTS)) == len(adapters(run.net))
    assert (zoo.load(folder).net(tokens) - wanted).abs().max() < 1e-4
    config = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(config.replace("init_from: given", "init_from: gone"))
    told = cli("export", "run", "--format", "peft", "--out", "whole", entry=main)
    assert told.code == 0, told.err
    assert (tmp_path / "whole" / "base" / "config.json").is_file(), "the base is saved where it is not at hand"
    assert (zoo.load("whole").net(tokens) - wanted).abs().max() < 1e-4


def test_an_adapter_over_4_bits_is_exported_with_its_base(tmp_path, cli, monkeypatch) -> None:
    """From the command line: read a plain model, train, load the checkpoint, and export."""
    monkeypatch.chdir(tmp_path)
    tokenizer = BPE(min_frequency=1, vocab_size=280).fit(["1+2=3\n4-5=-1\n"])
    spec = zoo.DataSpec(Tokens(24, tokenizer.vocab_size, dumps(tokenizer)))
    given = zoo.create_model("llama", data=spec, backbone={"d_model": 32, "n_layers": 1, "n_heads": 2, "d_ff": 64})
    for p in given.parameters():
        torch.nn.init.normal_(p, std=0.2)
    save.save(given, "given")
    words = ("model=sft", "model.lora_rank=2", "model.lora_4bit=true", "init_from=given")
    told = cli(*words, *FEW, "model.optimizer.lr=0.1", "hydra.run.dir=run")
    assert told.code == 0, told.err
    told = cli("export", "run", "--format", "peft", entry=main)
    assert told.code == 0, told.err
    folder, tokens = tmp_path / "run" / "export" / "peft", torch.arange(9)[None]
    with torch.no_grad():
        wanted = zoo.load("run").net(tokens)
        assert (zoo.load(folder).net(tokens) - wanted).abs().max() < 1e-4
        base = transformers.AutoModelForCausalLM.from_pretrained(folder / peft_adapter.BASE)
        assert (base(tokens).logits - given.net(tokens)).abs().max() > 1e-3, "the base is rounded"
        found = peft.PeftModel.from_pretrained(base, folder)(tokens).logits
    assert (found - wanted).abs().max() < 1e-4


def test_what_has_no_counterpart_is_refused(tmp_path, cli, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    gpt2().save_pretrained("base")
    refused = cli("export", "base", "--format", "peft", entry=main)
    assert refused.code == 1
    assert "it does not have adapters. Use --format huggingface." in refused.err
