"""Whether the numbers that a notebook's prose states are those of its variables.

``tests/claims/claims_NN.py`` holds a function ``claims(v)`` for notebook NN. It is given the
variables of the executed notebook and yields one row per claim: the words of the prose, the value,
the number stated, and the tolerance.
"""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MARK = "claims of the notebook: "


def claims_file(stem):
    """Path of the claims of a notebook, which need not exist."""
    return ROOT / "tests" / "claims" / f"claims_{stem[:2]}.py"


def kernel_code(stem):
    """Code that prints all claims of a notebook as JSON, to be run in its kernel after its last
    cell."""
    source = claims_file(stem).read_text(encoding="utf-8")
    return f"""
import json as _json
_names = {{}}
exec(compile({source!r}, "claims", "exec"), _names)
_rows = [(words, float(value), float(stated), float(tolerance))
         for words, value, stated, tolerance in _names["claims"](dict(globals()))]
print({MARK!r} + _json.dumps(_rows))
"""


def rows_in(text):
    """The claims that the code above has printed."""
    return json.loads(text.partition(MARK)[2].strip() or "[]")


def faults(notebook, rows):
    """One sentence for each claim that is not in the prose, or not true of the variables."""
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    prose = " ".join(prose.split())
    for words, value, stated, tolerance in rows:
        if " ".join(words.split()) not in prose:
            yield f"the prose does not say {words!r}"
        if not abs(value - stated) <= tolerance:
            yield f"{words!r}: the notebook has {value:.6g}, not {stated:g} within {tolerance:g}"
