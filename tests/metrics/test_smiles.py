"""SMILES: syntax, also against RDKit, tokens, data, and shares of valid molecules."""

import random

import pytest

import zoo
from zoo.core.errors import DataError
from zoo.core.smiles_syntax import TOKENS, syntax_error
from zoo.data.text.tokenizers.base import dumps, loads
from zoo.data.text.tokenizers.smiles import SmilesTokens
from zoo.evaluation.context import EvaluationConfig, EvaluationContext
from zoo.evaluation.suites.molecules import MoleculeSuite, accepted
from zoo.metrics.smiles import canonical, shares

WHOLE = """CCO c1ccccc1 CC(=O)Oc1ccccc1C(=O)O C[C@@H](N)C(=O)O C%12CC%12 [Na+].[Cl-] F/C=C/F [13CH4] C1.C1 CC(C)(C)C
Cn1cnc2c1c(=O)n(C)c(=O)n2C OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O CC(C)Cc1ccc(cc1)C(C)C(=O)O BrCCCl C#N N#N
CN1CCC[C@H]1c1cccnc1 O=C=O [NH4+] C1CCCCC1 c1ccc2ccccc2c1 CS(=O)(=O)N [O-][N+](=O)c1ccccc1 C(C(C(C)C)C)C
[se]1cccc1"""
BROKEN = "C1CC CC( CC) (CC) C= C==C [Zz]C C()C C11 C(=O C. 1CC1 CX C((C))C C(1CC1) C(.C)C [C C] -C ="
MOLECULES, WRONG = WHOLE.split(), BROKEN.split()


@pytest.mark.parametrize("text", MOLECULES)
def test_molecules_are_accepted(text):
    assert syntax_error(text) == ""
    assert "".join(TOKENS.findall(text)) == text


@pytest.mark.parametrize("text", [*WRONG, ""])
def test_other_texts_are_not(text):
    assert syntax_error(text)
    assert accepted(text) is None


def mutants(n, seed=0):
    """Molecules with one to three characters changed, removed or doubled."""
    draw, found = random.Random(seed), []
    for _ in range(n):
        text = list(draw.choice(MOLECULES))
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(text))
            text[place] = draw.choice(["", text[place] * 2, draw.choice("C1(=)2N#[]")])
        found.append("".join(text))
    return found


def test_the_syntax_accepts_whatever_rdkit_does():
    pytest.importorskip("rdkit")
    assert all(canonical(text) for text in MOLECULES)
    texts = mutants(1500)
    valid = [text for text in texts if canonical(text)]
    assert 100 < len(valid) < 1400
    assert [text for text in valid if syntax_error(text)] == []
    refused = [text for text in texts if not canonical(text)]
    found = sum(bool(syntax_error(text)) for text in refused)
    assert found > 0.6 * len(refused), "the rest has wrong valences or rings"
    assert not syntax_error("FC(F)(F)(F)F")
    assert canonical("FC(F)(F)(F)F") is None, "five bonds of a carbon, which is beyond the syntax"
    assert canonical("OCC") == canonical("CCO"), "one molecule in two forms"


def test_tokens_are_atoms_and_come_back():
    tokenizer = SmilesTokens().fit(MOLECULES)
    for text in MOLECULES:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("C[C@@H](N)BrC%12")) == 8
    assert tokenizer.encode("[Xe]") == [tokenizer.unknown]
    again = loads(dumps(tokenizer), tokenizer.vocab_size)
    assert again.encode(MOLECULES[2]) == tokenizer.encode(MOLECULES[2])
    with pytest.raises(DataError, match="tokens"):
        SmilesTokens.load(["C", "C"])


def test_shares_by_hand():
    found = shares(["a", "a", "b", "x"], ["a", "a", "b"], ["b"])
    assert found == {"valid": 0.75, "unique": pytest.approx(2 / 3), "novel": 0.5}
    assert shares([], [], []) == {"valid": 0.0, "unique": 0.0, "novel": 0.0}


def file_of(tmp_path):
    lines = [*(f"{text} name{i}" for i, text in enumerate(MOLECULES)), "CCO twice", "", "C1CC open"]
    (tmp_path / "all.smi").write_text("\n".join(lines))
    return tmp_path / "all.smi"


def test_a_file_is_read_once_each_and_split(tmp_path, caplog):
    data = zoo.create_data("smiles", path=str(file_of(tmp_path)), context=16, batch_size=2)
    data.setup()
    parts = [set(part) for part in data.texts]
    assert set().union(*parts) == set(MOLECULES)
    assert sum(map(len, parts)) == len(MOLECULES)
    assert [len(part) for part in data.texts[1:]] == [2, 2]
    assert "left out 1 line" in caplog.text
    assert "C1CC (ends with an open ring)" in caplog.text
    folder = zoo.create_data("smiles", path=str(tmp_path), context=16, batch_size=2)
    folder.setup()
    assert folder.texts == data.texts, "a folder, and the same split again"
    (tmp_path / "few.smi").write_text("C\nCC\n")
    with pytest.raises(DataError, match="at least 3"):
        _ = zoo.create_data("smiles", path=str(tmp_path / "few.smi")).spec


@pytest.mark.parametrize("recipe", ["gpt", "lstm"])
def test_models_learn_molecules_and_are_scored(tmp_path, recipe):
    data = zoo.create_data("smiles", path=str(file_of(tmp_path)), context=16, batch_size=4)
    small = {"d_model": 16, "n_layers": 1} | ({"n_heads": 2} if recipe == "gpt" else {})
    model = zoo.fit(zoo.create_model(recipe, data=data, backbone=small), data, max_steps=2, progress=False)
    suite = MoleculeSuite()
    assert suite.applies(model, data)
    scores = suite.measure(EvaluationContext(model, data, EvaluationConfig()))
    judge = "rdkit" if [name for name in scores if "rdkit" in name] else "syntax"
    assert set(scores) == {f"{name}_{judge}@256_test" for name in ("valid", "unique", "novel")}
    assert scores[f"valid_{judge}@256_test"].real_data_reference == 1.0
    assert scores[f"valid_{judge}@256_test"].value < 1, "two batches do not teach the syntax"
