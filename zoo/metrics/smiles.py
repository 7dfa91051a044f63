"""Shares of valid, different and new molecules."""

from collections.abc import Collection, Sequence


def canonical(text: str) -> str | None:
    """The canonical SMILES of a molecule by RDKit, which checks valences too; None if there is none.

    Raises:
        ImportError: RDKit is not installed.
    """
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    molecule = Chem.MolFromSmiles(text) if text else None
    return None if molecule is None else str(Chem.MolToSmiles(molecule))


def shares(texts: Sequence[str], valid: Sequence[str], known: Collection[str]) -> dict[str, float]:
    """Share of texts that are valid; of these, of different ones; of these, of those that are not known.

    Args:
        texts: all that were drawn.
        valid: the valid ones among them, canonical where possible.
        known: training molecules in the same form.
    """
    different = set(valid)
    return {
        "valid": len(valid) / max(len(texts), 1),
        "unique": len(different) / max(len(valid), 1),
        "novel": len(different - set(known)) / max(len(different), 1),
    }
