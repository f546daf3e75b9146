"""pytest plugin: nbval compares the text of outputs exactly, and their numbers as far as they are
printed.

nbval compares strings with `!=`. Its hooks are `sanitize`, which prepares a string, and
`format_output_compare`, which says what differs. Regular expressions cannot do it, because a number
rounded to fewer digits has an edge too. Here `sanitize` returns a `Printed`, a string that differs
from another one by these rules:

- Words, names, punctuation, tags and line breaks are exact, and so are rows and columns. A run of
blanks counts as
  one: it aligns columns. Digits joined to letters belong to a name: 2M21235315+1244123, float32,
  v2.5, 87σ.
- A whole number, with or without ".0", is a count, and exact.
- Any other number may be one unit of its last printed digit off, up to three where that is at most
2 % of it, and
  in any case 1e-6 of it, which is what single precision knows. nan and inf are words.
- In scientific notation a zero, or less than 1e-9, is no measurement (1e-17 erg is a unit): exact.

Two tags in the metadata of a cell relax this for its outputs. `nbval-rounded`: whole numbers are
measured values printed to the unit. `nbval-within-20-percent`, with any number: a measured value
may be that far off. Progress bars are dropped, so that the cells which show one are compared as
well; so are the random identifiers of HTML elements, and what libraries say on stderr that is no
warning and no error. Images are not compared.
"""

import re
from collections import defaultdict
from decimal import Decimal
from difflib import SequenceMatcher
from itertools import islice

import nbformat
import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

import claims
from run_notebooks import without_bars

TOKEN = re.compile(
    r"""(?P<tag></?[a-z]\w*(?:\s[^<>]*)?>)
    | (?P<number>[+\-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?P<measured>(?:\.\d+)?(?:[eE][+\-−]?\d+)?)(?!\w|\.\d))
    | (?P<name>\w+(?:[+\-.]\w+)*)
    | (?P<blank>\s+)
    | .""",
    re.VERBOSE,
)
COUNT, MEASURED = "\0count", "\0measured"
UNITS, SHARE, SINGLE = 3, Decimal("0.02"), Decimal("1e-6")
LEAST = Decimal("1e-9")
RANDOM_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
MOST = 20  # lines of a failure's message


def parse(text):
    """The tokens of a text, and what each must share with that of another text: itself, or its kind
    of number."""
    words, shapes = [], []
    for match in TOKEN.finditer(text.strip()):
        word = match[0]
        if match["blank"]:
            word = "\n" if "\n" in word else " "
        words.append(word)
        shapes.append((MEASURED if match["measured"] else COUNT) if match["number"] else word)
    return words, shapes


def excess(committed, new, kind, rounded=False, within=0):
    """Why a printed number is not the other one, or None if it is as far as the two are printed."""
    a, b = (Decimal(number.replace(",", "").replace("−", "-")) for number in (committed, new))
    if committed == new or (a == b and (a == 0 or kind == MEASURED)):
        return None
    scientific = "e" in (committed + new).lower()
    whole = not scientific and a == a.to_integral() and b == b.to_integral()
    if whole and not rounded:
        return "a count"
    if scientific and min(abs(a), abs(b)) < LEAST:
        return "no measurement"
    unit = Decimal(1).scaleb(
        max(min(a.as_tuple().exponent, b.as_tuple().exponent), 0 if whole else -99)
    )
    size, off = max(abs(a), abs(b)), abs(a - b)
    if off <= max(unit, min(UNITS * unit, SHARE * size), SINGLE * size, size * within / 100):
        return None
    return f"{off / unit:.0f} units of the last digit"


def mismatches(committed, new, **tolerance):
    """One line for each place where two outputs differ."""
    (old, old_shapes), (now, now_shapes) = parse(committed), parse(new)
    blocks = [("equal", 0, len(old), 0, len(now))]
    if old_shapes != now_shapes:
        blocks = SequenceMatcher(None, old_shapes, now_shapes).get_opcodes()
    for kind, start, end, now_start, now_end in blocks:
        if kind != "equal":
            yield _line(old, start, end, now[now_start:now_end], "text")
            continue
        for place, other in zip(range(start, end), range(now_start, now_end), strict=True):
            shape = old_shapes[place]
            if shape in (COUNT, MEASURED) and (
                why := excess(old[place], now[other], shape, **tolerance)
            ):
                yield _line(old, place, place + 1, [now[other]], why)


def _line(old, start, end, new, why):
    before, after = _plain(old[max(start - 60, 0) : start])[-45:], _plain(old[end : end + 60])[:45]
    return f"{before} [{_plain(old[start:end])} -> {_plain(new)}] {after}: {why}"


def _plain(words):
    """Words as one line, without the tags of HTML."""
    return " ".join("".join(" " if TOKEN.match(word)["tag"] else word for word in words).split())


class Printed(str):
    """Text of an output, equal to another one where nothing but rounding differs."""

    def __new__(cls, text, **tolerance):
        self = super().__new__(cls, text)
        self.tolerance = tolerance
        return self

    def __ne__(self, other):
        return any(mismatches(self, other, **self.tolerance))

    def __eq__(self, other):
        return not self != other

    __hash__ = str.__hash__


def tolerance_of(tags):
    """What the tags of a cell allow: keywords of `excess`."""
    within = [
        int(match[1]) for tag in tags if (match := re.fullmatch(r"nbval-within-(\d+)-percent", tag))
    ]
    return {"rounded": "nbval-rounded" in tags, "within": max(within, default=0)}


def spoken(outputs):
    """Outputs without progress bars and without remarks on stderr; warnings and errors stay."""
    for out in without_bars(outputs):
        if out.get("name") != "stderr" or re.search("Warning|Error", out.text):
            yield out


class Cell(IPyNbCell):
    def sanitize(self, s):
        text = super().sanitize(s)
        tolerance = tolerance_of(self.cell.metadata.get("tags", []))
        return Printed(RANDOM_ID.sub("id", text), **tolerance) if isinstance(s, str) else text

    def compare_outputs(self, test, ref, skip_compare=None):
        test, ref = list(spoken(test)), list(spoken(ref))
        same = super().compare_outputs(test, ref, skip_compare)
        if not same:
            self.comparison_traceback += [out.text for out in test if out.get("name") == "stderr"]
        return same

    def format_output_compare(self, key, left, right):
        if not isinstance(left, Printed):
            return super().format_output_compare(key, left, right)
        lines = islice(mismatches(left, right, **left.tolerance), MOST)
        self.comparison_traceback += [
            f"{key}, text before [committed -> new] text after: why",
            *lines,
        ]


class Claims(IPyNbCell):
    """The last test of a notebook: each number that its prose states is that of its variables."""

    def runtest(self):
        super().runtest()
        text = "".join(out.get("text", "") for out in self.test_outputs)
        found = list(claims.faults(self.parent.nb, claims.rows_in(text)))
        if claims.MARK not in text:
            found.append(f"the claims could not be read: {text[-500:]}")
        if found:
            self.comparison_traceback = found
            self.raise_cell_error("\n".join(["the prose is not what the notebook found:", *found]))


class Notebook(IPyNbFile):
    def collect(self):
        number = 0
        for cell in super().collect():
            yield Cell.from_parent(
                self, name=cell.name, cell_num=cell.cell_num, cell=cell.cell, options=cell.options
            )
            number = cell.cell_num + 1
        if claims.claims_file(self.path.stem).is_file():
            code = nbformat.v4.new_code_cell(claims.kernel_code(self.path.stem))
            options = defaultdict(bool, check=False)
            yield Claims.from_parent(
                self, name="claims", cell_num=number, cell=code, options=options
            )


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(parent):
    """Put `Notebook` where nbval collects its own kind of file."""
    collectors = yield
    return [
        Notebook.from_parent(parent, path=c.path) if type(c) is IPyNbFile else c for c in collectors
    ]
