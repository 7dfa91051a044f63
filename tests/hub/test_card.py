"""Model cards: complete, deterministic, with valid metadata, and safe."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

import zoo
from zoo.hub import manifest
from zoo.hub.bundle import bundle
from zoo.hub.card import card, metadata
from zoo.hub.manifest import FILE, WEIGHTS, Manifest, parse, parse_version
from zoo.interop.export.export import export

FILES = {WEIGHTS: {"sha256": "0" * 64, "size": 3}}
METRICS = {
    "fd_digits@1437_test": {"value": 38.25, "better": "lower", "error": 1.5, "real_data_reference": 24.2, "note": ""},
    "nll@180_test": {"value": None, "better": "lower", "error": None, "real_data_reference": None, "note": ""},
}
FACTS = Manifest(
    name="vae-digits", model="vae", data="digits", space="image", licence="CC-BY-4.0", files=FILES, metrics=METRICS,
    protocol={"split": "test", "draws": 3, "samples": None}, command="python train.py model=vae seed=0",
    parameters=1234, dtype="float16", batches=10, versions={"zoo": "0.1.0"},
)  # fmt: skip


def test_a_card_has_the_facts_and_the_metrics() -> None:
    text = card(FACTS, picture=True)
    assert text == card(FACTS, picture=True), "deterministic"
    parts = ["1,234", "float16", "CC-BY-4.0", "python train.py model=vae seed=0", "zoo sample vae-digits", "zoo 0.1.0"]
    parts += ["| `fd_digits@1437_test` ↓ | 38.25 ± 1.5 | 24.2 |", "split test, draws 3", "![samples"]
    for part in parts:
        assert part in text, part
    assert card(replace(FACTS, metrics={}), picture=True) != text
    assert "It was not evaluated." in card(replace(FACTS, metrics={}))
    assert "![samples" not in card(FACTS)


def test_the_hub_reads_the_metadata() -> None:
    data = ModelCard(card(FACTS)).data
    assert data["library_name"] == "zoo"
    assert data.license == "cc-by-4.0"
    assert data.pipeline_tag == "unconditional-image-generation"
    assert data.eval_results is not None
    assert [(e.metric_type, e.metric_value, e.dataset_type) for e in data.eval_results] == [
        ("fd_digits@1437_test", 38.25, "digits")
    ], "numbers only"
    other = metadata(replace(FACTS, licence="public domain", space="tokens"))
    assert (other["license"], other["license_name"], other["pipeline_tag"]) == (
        "other",
        "public-domain",
        "text-generation",
    )
    assert "license_name" not in metadata(replace(FACTS, licence=""))


@pytest.mark.parametrize(
    ("abilities", "task", "line"),
    [
        (("caption",), "image-to-text", "zoo caption vae-digits --image picture.png"),
        (("embed", "embed_data"), "feature-extraction", 'zoo embed vae-digits "a text"'),
        (("fill", "generate"), "fill-mask", 'zoo sample vae-digits --prompt "... [MASK] ..."'),
        (("sample", "latents"), "unconditional-image-generation", "zoo sample vae-digits\n"),
    ],
)
def test_task_and_use_are_those_of_the_abilities(abilities: tuple[str, ...], task: str, line: str) -> None:
    made = replace(FACTS, abilities=abilities)
    assert metadata(made)["pipeline_tag"] == metadata(made)["model-index"][0]["results"][0]["task"]["type"] == task
    assert line in card(made)
    assert ("zoo sample vae-digits\n" in card(made)) == ("sample" in abilities)


def test_untrusted_facts_do_not_break_out_of_the_card() -> None:
    evil = "x | y\n\n# Title <script>alert(1)</script> \x1b[31m\n---\nlicense: mit"
    text = card(
        replace(FACTS, summary=evil, command=evil, hardware=evil, data=evil, init_from=evil, commit=evil, licence=evil,
                metrics={evil: METRICS["fd_digits@1437_test"]}),
        texts=evil,
    )  # fmt: skip
    body = text.split("---\n", 2)[2]
    assert "\x1b" not in text
    assert "\n# Title" not in body
    outside = "\n".join(line for line in body.splitlines() if not line.startswith("    "))
    assert "<script" not in outside
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "other"
    assert "<script" in card(replace(FACTS, command=evil)), "in code, which is shown as it is"


def test_a_card_of_a_run(run: Path, tmp_path: Path) -> None:
    found = bundle(run, tmp_path, "ae-moons")
    text = (tmp_path / "README.md").read_text()
    assert "![samples of ae-moons](samples.png)" in text
    assert "reconstruction_mse@10k_test" in text
    assert "generated" in text
    assert found.files["README.md"]["size"] == len(text.encode())
    with pytest.raises(AssertionError):
        assert text == card(found, picture=False)
    assert text == card(found, picture=True)


def test_metrics_of_other_weights_are_left_out(run: Path, tmp_path: Path) -> None:
    """The measured file is identified by its digest."""
    import shutil

    copy = shutil.copytree(run, tmp_path / "copy")
    assert bundle(copy, tmp_path / "a", "m").metrics
    shutil.copyfile(copy / "last.ckpt", copy / "best.ckpt")
    table = (copy / "metrics.json").read_text()
    (copy / "metrics.json").write_text(table.replace('"sha256": "', '"sha256": "0', 1))
    assert not bundle(copy, tmp_path / "b", "m").metrics
    (copy / "metrics.json").write_text("{")
    with pytest.raises(zoo.CheckpointError, match="damaged"):
        bundle(copy, tmp_path / "c", "m")


@pytest.mark.parametrize(
    "change",
    [
        b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"schema": 1}', b'{"schema": 2}', b'{"model_type": "gpt2"}',
        FACTS.to_bytes().replace(b'"vae-digits"', b'"../vae"'),
        FACTS.to_bytes().replace(WEIGHTS.encode(), b"../model.safetensors"),
        FACTS.to_bytes().replace(WEIGHTS.encode(), b"model.ckpt"),
        FACTS.to_bytes().replace(b'"size": 3', b'"size": -1'),
        FACTS.to_bytes().replace(b'"size": 3', b'"size": true'),
        FACTS.to_bytes().replace(b"0" * 64, b"0" * 63),
        FACTS.to_bytes().replace(b'"seed": 0', b'"seed": "0"'),
        FACTS.to_bytes().replace(b'"seed": 0', b'"seed": 0, "more": 1'),
        FACTS.to_bytes().replace(b'"command": "', b'"command": 3, "x": "'),
    ],
)  # fmt: skip
def test_damaged_and_hostile_manifests_are_refused(change: bytes) -> None:
    assert parse(FACTS.to_bytes(), "here") == FACTS
    with pytest.raises(zoo.CheckpointError, match="here"):
        parse(change, "here")


def test_any_changed_byte_of_a_manifest_is_found() -> None:
    content = FACTS.to_bytes()
    assert parse_version(content, FACTS.version, "here") == FACTS
    for place in range(0, len(content), 7):
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        with pytest.raises(zoo.CheckpointError):
            parse_version(changed, FACTS.version, "here")


def test_the_identifier_covers_every_file(run: Path, tmp_path: Path) -> None:
    found = bundle(run, tmp_path, "m")
    assert replace(found, source="memory://elsewhere").version == found.version
    for name in found.files:
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content + b"x")
        with pytest.raises(zoo.CheckpointError, match=name):
            manifest.verify(found, tmp_path)
        assert replace(found, files=manifest.digests(tmp_path)).version != found.version
        (tmp_path / name).write_bytes(content)
    manifest.verify(found, tmp_path)
    assert FILE not in found.files


def test_an_export_has_a_card(run: Path, tmp_path: Path) -> None:
    export(run, "safetensors", tmp_path / "model.safetensors")
    text = (tmp_path / "model.md").read_text()
    assert 'zoo.load("model.safetensors")' in text
    assert "reconstruction_mse@10k_test" in text
    assert ModelCard(text).data.license == "other"
