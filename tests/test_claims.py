"""The numbers of the prose: each notebook has claims, each claim is a sentence of the page, and a
false one is seen.

Whether the numbers are those of the notebook's variables is the last test of each notebook's run
(`nbval_numbers`).
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest

import claims

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
BY_NAME = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
NUMBER = r"\d(?:[\d,.]*\d)?"
WITH_ERROR = re.compile(rf"{NUMBER}\s*±\s*{NUMBER}")


def words_claimed(path):
    """The words of all claims of a notebook, as far as they stand in the source as text."""
    tree = ast.parse(claims.claims_file(path.stem).read_text(encoding="utf-8"))
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [" ".join(text.split()) for text in texts if isinstance(text, str)]


def prose(path):
    cells = nbformat.read(path, 4).cells
    return [cell.source for cell in cells if cell.cell_type == "markdown"]


@BY_NAME
def test_a_notebook_has_claims(path):
    assert "def claims(v)" in claims.claims_file(path.stem).read_text(encoding="utf-8")


@BY_NAME
def test_each_number_with_an_error_in_an_answer_is_claimed(path):
    claimed = "\n".join(words_claimed(path))
    answers = [" ".join(text.split()) for text in prose(path) if "**Answer.**" in text]
    found = {number for answer in answers for number in WITH_ERROR.findall(answer)}
    assert {number for number in found if number not in claimed} == set()


def notebook_of(text):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])


def test_a_false_number_and_missing_words_are_found():
    page = notebook_of("The bias\nis -11 ± 2 K.")
    assert list(claims.faults(page, [("bias is -11 ± 2", -11.4, -11, 1)])) == []
    (wrong,) = claims.faults(page, [("bias is -11", -14.0, -11, 1)])
    assert "the notebook has -14" in wrong
    (missing,) = claims.faults(page, [("bias is -12", -12, -12, 1)])
    assert "does not say" in missing
    assert len(list(claims.faults(page, [("bias is -11", float("nan"), -11, 1)]))) == 1
