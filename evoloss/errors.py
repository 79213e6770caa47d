"""The one error that a user can cause: `EvolossError`, printed as a line, never as a traceback."""

import difflib
from collections.abc import Iterable


class EvolossError(ValueError):
    """Something that the user can mend; the message says what was expected, what came and what to do."""


def suggest(word: str, known: Iterable[str]) -> str:
    """`, did you mean `x`?` for the known word nearest to `word`, or nothing where none is near."""
    known = list(known)
    folded = {name.lower(): name for name in known}
    near = [folded[word.lower()]] if word.lower() in folded else difflib.get_close_matches(word, known, 1, 0.5)
    return f", did you mean `{near[0]}`?" if near else ""
