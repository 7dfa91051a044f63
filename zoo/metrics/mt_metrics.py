"""How near texts are to what they should be: BLEU and chrF by sacrebleu, and how many are the same."""

from collections.abc import Sequence


def bleu(outputs: Sequence[str], references: Sequence[str], lowercase: bool = False) -> tuple[float, str]:
    """Corpus BLEU from 0 to 100 (Papineni et al. 2002), and sacrebleu's signature (Post 2018, 1804.08771).

    Args:
        outputs: of a model, without tokenisation.
        references: one for each, likewise.
        lowercase: leave the difference between capital and small letters out.
    """
    from sacrebleu.metrics import BLEU

    metric = BLEU(lowercase=lowercase)
    return metric.corpus_score(list(outputs), [list(references)]).score, str(metric.get_signature())


def chrf(outputs: Sequence[str], references: Sequence[str], lowercase: bool = False) -> tuple[float, str]:
    """Corpus chrF from 0 to 100, of character n-grams up to 6 (Popović 2015), and sacrebleu's signature."""
    from sacrebleu.metrics import CHRF

    metric = CHRF(lowercase=lowercase)
    return metric.corpus_score(list(outputs), [list(references)]).score, str(metric.get_signature())


def exact(outputs: Sequence[str], references: Sequence[str], lowercase: bool = False) -> float:
    """Share of the outputs that are their references, white space at the ends apart."""
    same = [a.strip() == (b.lower() if lowercase else b).strip() for a, b in zip(outputs, references, strict=True)]
    return sum(same) / len(same)
