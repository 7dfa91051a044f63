"""Tokens and syntax of SMILES strings (OpenSMILES specification 1.0)."""

import re

ELEMENTS = frozenset(
    re.findall(
        r"[A-Z][a-z]?",
        "HHeLiBeBCNOFNeNaMgAlSiPSClArKCaScTiVCrMnFeCoNiCuZnGaGeAsSeBrKrRbSrYZrNbMoTcRuRhPdAgCdInSnSbTeI"
        "XeCsBaLaCePrNdPmSmEuGdTbDyHoErTmYbLuHfTaWReOsIrPtAuHgTlPbBiPoAtRnFrRaAcThPaUNpPuAmCmBkCfEsFmMd"
        "NoLrRfDbSgBhHsMtDsRgCnNhFlMcLvTsOg",
    )
)
AROMATIC = frozenset({"b", "c", "n", "o", "p", "s", "se", "as", "te", "*"})  # and an unknown element
ATOMS = frozenset({"B", "C", "N", "O", "P", "S", "F", "Cl", "Br", "I", "b", "c", "n", "o", "p", "s", "*"})
BONDS = frozenset("-=#$:/\\~")
# An atom in brackets, an atom of two letters, a ring number of two digits, or any other character.
TOKENS = re.compile(r"\[[^\]\s]*\]|Br|Cl|%\d\d|.", re.DOTALL)
BRACKETED = re.compile(  # isotope, element, chirality, hydrogens, charge, class (OpenSMILES, section 3.1)
    r"\[\d*([A-Z][a-z]?|[a-z][a-z]?|\*)(?:@(?:@|(?:TH|AL|SP|TB|OH)\d+)?)?(?:H\d*)?(?:\++|-+|[+-]\d+)?(?::\d+)?\]"
)


def syntax_error(text: str) -> str:
    """Reason why a text is not SMILES by its syntax alone; empty if it is.

    Atoms, bonds, branches and ring numbers are checked. Valence, aromaticity and chirality are not: an accepted text
    is not always a molecule.
    """
    branches, rings = list[int](), dict[str, int]()  # atoms that branches begin at; atoms of open ring numbers
    atoms, current, bond, opened = 0, -1, False, False  # number, the last one, and whether a bond or branch has begun
    for token in TOKENS.findall(text):
        if token in ATOMS or token[0] == "[":
            found = BRACKETED.fullmatch(token)
            if token[0] == "[" and (found is None or found[1] not in ELEMENTS | AROMATIC):
                return f"{token} is not an atom"
            current, atoms, bond, opened = atoms, atoms + 1, False, False
        elif current < 0:
            return f"{token} before an atom"
        elif token in BONDS:
            if bond:
                return "two bonds in a row"
            bond = True
        elif token.isdecimal() or (token[0] == "%" and len(token) == 3):
            if opened:
                return "a ring number at the beginning of a branch"
            number = token.lstrip("%").lstrip("0") or "0"
            if number not in rings:
                rings[number] = current
            elif rings.pop(number) == current:
                return f"ring {number} from an atom to itself"
            bond = False
        elif token == "(":
            if bond or opened:
                return "a branch after a bond" if bond else "a branch at the beginning of a branch"
            branches.append(current)
            opened = True
        elif token == ")":
            if not branches or bond or opened:
                return "an empty branch" if opened else "a bond before )" if bond else ") without ("
            current = branches.pop()
        elif token == ".":
            if bond or opened or branches:
                return ". inside of a branch or after a bond"
            current = -1
        else:
            return f"{token} has no meaning"
    if bond or branches or rings or current < 0:
        ends = {"a bond": bond, "an open branch": bool(branches), "an open ring": bool(rings)}
        return f"ends with {next((end for end, holds in ends.items() if holds), 'nothing')}"
    return ""
