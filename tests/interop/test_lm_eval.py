"""The lm-evaluation-harness over models of the zoo: against the model itself, and through a local task."""

import json
import math

import pytest
import torch

import zoo
from zoo.core.spaces import Image, Tokens
from zoo.data.text.tokenizers.base import dumps
from zoo.data.text.tokenizers.bpe import BPE
from zoo.data.text.tokenizers.char import Char
from zoo.models.autoregressive.language_model import LanguageModel
from zoo.models.baselines.ngram import NGram

TEXT = "the quick brown fox jumps over the lazy dog, and then the fox sleeps\n" * 40


@pytest.fixture(autouse=True, scope="module")
def offline(tmp_path_factory):
    """Temporary folders for the harness's libraries, without network."""
    pytest.importorskip("lm_eval")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, "1")
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        yield


def model(kind="gpt", context=16, bpe=False):
    tokenizer = BPE(min_frequency=1, vocab_size=300).fit([TEXT]) if bpe else Char().fit([TEXT])
    spec = zoo.DataSpec(Tokens(context, tokenizer.vocab_size, dumps(tokenizer)), name="t")
    torch.manual_seed(0)
    if kind == "ngram":
        made = NGram(spec, order=9)
        tokens = torch.tensor([made.end, *tokenizer.encode(TEXT)])
        made.net.fit(tokens, torch.arange(len(tokens)) == 0)
        return made.eval()
    network = {"name": "lstm"} if kind == "lstm" else {"name": "transformer", "n_layers": 2, "n_heads": 2}
    made = LanguageModel(spec, backbone={**network, "d_model": 16})
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(std=0.4)
    return made.eval()


def harness(made, **settings):
    from zoo.interop.lm_eval import ZooLM

    return ZooLM(made, **{"batch_size": 3, **settings})


def ask(kind, *arguments):
    from lm_eval.api.instance import Instance

    return [Instance(request_type=kind, doc={}, arguments=a, idx=i) for i, a in enumerate(arguments)]


def by_hand(made, before, after, window):
    """Score each token of `after` separately, in a full window."""
    row, total, greedy = before + after, 0.0, True
    start = max(len(row) - window - 1, 0)
    with torch.no_grad():
        logits = made.net(torch.tensor([row[start:-1]]))[0].double()
    for place, token in enumerate(row[start + 1 :]):
        if start + 1 + place >= len(before):
            total += logits[place].log_softmax(-1)[token].item()
            greedy &= logits[place].argmax().item() == token
    return total, greedy


PAIRS = [
    ("the quick", " brown fox"),
    ("", "the"),
    ("the quick ", "brown"),
    ("the quick brown fox jumps over the lazy dog, and", " then"),
    ("a", ""),
    ("\n\n", "dog"),
]


@pytest.mark.parametrize("bpe", [False, True])
@pytest.mark.parametrize("kind", ["gpt", "lstm", "ngram"])
def test_a_continuation_is_as_likely_as_the_model_says(kind, bpe):
    made = model(kind, bpe=bpe)
    lm = harness(made)
    got = lm.loglikelihood(ask("loglikelihood", *PAIRS))
    for (context, continuation), (nats, greedy) in zip(PAIRS, got, strict=True):
        before, after = lm.encode_pair(context, continuation)
        text = made.tokenizer.decode([t for t in before + after if t != made.end])
        assert text == context + continuation
        want = by_hand(made, before, after, min(made.net.context, 2048)) if after else (0.0, True)
        assert (nats, greedy) == (pytest.approx(want[0], abs=1e-4), want[1])
        if after and len(before) + len(after) <= 17:
            whole, head = (torch.tensor([row[1:]]) for row in (before + after, before))
            with torch.no_grad():  # log p(context, continuation) - log p(context), by the model's own method
                rest = made.log_prob(head).item() if head.numel() else 0.0
                assert nats == pytest.approx(made.log_prob(whole).item() - rest, abs=1e-4)


def test_what_greedy_decoding_writes_is_called_greedy():
    made = model()
    lm = harness(made)
    written = made.generate(["the fox"], max_new_tokens=5, temperature=0)[0].text
    other = written[:-1] + ("z" if written[-1] != "z" else "y")
    got = lm.loglikelihood(ask("loglikelihood", ("the fox", written), ("the fox", other)))
    assert [greedy for _, greedy in got] == [True, False]
    assert got[0][0] > got[1][0]


def test_no_token_spans_the_border():
    """Where both together are other tokens than each apart, the continuation is scored byte for byte."""
    lm = harness(model(bpe=True))
    encode, decode = lm.model.tokenizer.encode, lm.model.tokenizer.decode
    spans = 0
    for cut in range(1, 60):
        context, continuation = TEXT[:cut], TEXT[cut : cut + 9]
        before, after = lm.encode_pair(context, continuation)
        kept = context.rstrip()
        assert (decode(before[1:]), decode(after)) == (kept, context[len(kept) :] + continuation)
        spans += encode(kept) != encode(context + continuation)[: len(encode(kept))]
    assert spans > 5, "no token would have spanned it anyway"


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
@pytest.mark.parametrize("size", [1, 15, 16, 17, 32, 33, 70])
def test_a_long_text_counts_every_token_once(kind, size):
    made = model(kind)
    lm = harness(made)
    text = TEXT[:size]
    (got,) = lm.loglikelihood_rolling(ask("loglikelihood_rolling", (text,)))
    tokens, want, done = [made.end, *made.tokenizer.encode(text)], 0.0, 1
    while done < len(tokens):
        end = min(done + lm.window, len(tokens))
        want += by_hand(made, tokens[:done], tokens[done:end], lm.window)[0]
        done = end
    assert got == pytest.approx(want, abs=1e-3)
    if kind == "lstm" or size <= 16:
        assert got == pytest.approx(made.log_prob(torch.tensor([tokens[1:]])).item(), abs=1e-3)
    (as_continuation,) = lm.loglikelihood(ask("loglikelihood", ("", text)))
    assert as_continuation[0] == pytest.approx(got, abs=1e-9)


def test_rows_do_not_depend_on_their_batch():
    made = model()
    one, many = harness(made, batch_size=1), harness(made, batch_size=64)
    requests = ask("loglikelihood", *PAIRS, *((TEXT[:n], TEXT[n : n + 7]) for n in range(20)))
    for (a, also_a), (b, also_b) in zip(one.loglikelihood(requests), many.loglikelihood(requests), strict=True):
        assert a == pytest.approx(b, abs=1e-4)
        assert also_a == also_b


def test_writing_stops_where_the_task_says():
    made = model("ngram")
    lm = harness(made, batch_size=2)
    plain = {"until": ["\n"], "max_gen_toks": 40}
    got = lm.generate_until(
        ask(
            "generate_until",
            ("the quick brown fox jumps over", plain),
            ("the quick", {"until": [" fox", ","], "do_sample": False, "temperature": 0.7}),
            ("the", {"until": [], "max_gen_toks": 6}),
            ("the quick brown", {"until": " jumps", "max_gen_toks": 40, "do_sample": True, "temperature": 0.5}),
            ("then the fox", plain),
        )
    )
    assert got[0] == " the lazy dog, and then the fox sleeps"
    assert got[1] == " brown"
    assert len(got[2]) == 6
    assert "jumps" not in got[3]
    want = made.generate(["then the fox"], max_new_tokens=40, stop=["\n"], temperature=0)[0].text
    assert got[4] == want
    assert lm.options({})["max_new_tokens"] == 256
    with pytest.raises(zoo.ZooError, match="unknown option 'best_of'"):
        lm.generate_until(ask("generate_until", ("the", {"best_of": 3})))


def test_what_cannot_be_scored_is_refused():
    pictures = zoo.create_model("image_gpt", data=zoo.DataSpec(Image(1, 4, 4, levels=2)), backbone={"d_model": 16})
    with pytest.raises(zoo.ZooError, match="does not continue text"):
        harness(pictures)
    with pytest.raises(zoo.ZooError, match="batch_size=auto: not an integer"):
        harness(model(), batch_size="auto")


TASKS = {
    "choices": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
doc_to_choice: "{{choices}}"
metric_list: [{metric: acc}]
""",
    "rolling": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list: [{metric: byte_perplexity}, {metric: bits_per_byte}]
""",
    "writing": """
output_type: generate_until
doc_to_text: "{{question}} "
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: [" jumps", " dog"], max_gen_toks: 20}
metric_list: [{metric: exact_match}]
""",
}
DOCUMENTS = [
    {"question": "the quick brown", "choices": ["dog", "fox"], "answer": 1},
    {"question": "fox jumps over the", "choices": ["lazy dog", "sleeps"], "answer": 0},
]


def test_local_tasks_through_the_harness(tmp_path, monkeypatch):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    made = model("ngram")
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps(d) + "\n" for d in DOCUMENTS))
    for name, body in TASKS.items():
        head = f"task: {name}\ntest_split: test\ndataset_path: json\n"
        data = f"dataset_kwargs: {{data_files: {{test: '{questions}'}}, cache_dir: '{tmp_path}'}}\n"
        (tmp_path / f"{name}.yaml").write_text(head + data + body.lstrip())
    monkeypatch.setattr(
        "zoo.interop.lm_eval.load", lambda run, device: made if (run, device) == ("RUN", "cpu") else None
    )
    harness(made)  # its module makes the name "zoo" known
    results = simple_evaluate(
        "zoo", "run=RUN", list(TASKS), batch_size=2, bootstrap_iters=0, log_samples=False,
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
    )["results"]  # fmt: skip
    assert results["choices"]["acc,none"] == 1
    assert results["writing"]["exact_match,none"] == 0.5  # "fox", but "lazy"
    text = [d["question"] for d in DOCUMENTS]
    nats = -sum(made.log_prob(torch.tensor([made.tokenizer.encode(t)])).item() for t in text)
    want = nats / sum(map(len, text)) / math.log(2)
    assert results["rolling"]["bits_per_byte,none"] == pytest.approx(want, rel=1e-4)


def test_the_command_line_is_the_harness_s_own(monkeypatch, capsys):
    from zoo.interop.lm_eval import main

    monkeypatch.setattr("sys.argv", ["zoo.interop.lm_eval", "--help"])
    with pytest.raises(SystemExit) as told:
        main()
    assert told.value.code == 0
    assert "lm" in capsys.readouterr().out.lower()
