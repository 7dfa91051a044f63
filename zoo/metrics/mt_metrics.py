"""Machine-translation metrics: BLEU and chrF by sacrebleu, and exact match."""

from collections.abc import Sequence


def bleu(outputs: Sequence[str], references: Sequence[str], lowercase: bool = False) -> tuple[float, str]:
    """Corpus BLEU from 0 to 100 (Papineni et al. 2002), and sacrebleu's signature (Post 2018, 1804.08771).

    Args:
        outputs: untokenised model outputs.
        references: one untokenised reference per output.
        lowercase: ignore case.
    """
    from sacrebleu.metrics import BLEU

    metric = BLEU(lowercase=lowercase)
    return metric.corpus_score(list(outputs), [list(references)]).score, str(metric.get_signature())


def chrf(outputs: Sequence[str], references: Sequence[str], lowercase: bool = False) -> tuple[float, str]:
    """Corpus chrF from 0 to 100, of character n-grams up to 6 (Popović 2015), and sacrebleu's signature."""
    from sacrebleu.metrics import CHRF

    metric = CHRF(lowercase=lowercase)
    return metric.corpus_score(list(outputs), [list(references)]).score, str(metric.get_signature())


def exact_match(outputs: Sequence[str], references: Sequence[str], lowercase: bool = False) -> float:
    """Share of outputs equal to their references, ignoring surrounding white space, and case with `lowercase`."""
    as_read = str.lower if lowercase else str
    same = [as_read(a).strip() == as_read(b).strip() for a, b in zip(outputs, references, strict=True)]
    return sum(same) / len(same)
