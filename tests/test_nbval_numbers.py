"""The comparison of notebook outputs: what it must see, and what it must not mind."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from nbval_numbers import Printed, mismatches, tolerance_of
from run_notebooks import WIDGET, without_bars

TESTS = Path(__file__).parent
TABLE = "        teff  logg   n\nM67   4512.3  2.51  86\nM13   4388.1  1.97  12"
HTML = '<table border="1"><tr><th>M67</th><td>4512.3</td><td>86</td></tr></table>'


def same(committed, new, **tolerance):
    return Printed(committed, **tolerance) == new


@pytest.mark.parametrize(
    ("committed", "new"),
    [
        ("scatter 26.4 K", "bias 26.4 K"),  # a changed word
        ("scatter 26.4 K", "scatter 26.4 dex"),
        ("star 2M21235315+1244123", "star 2M21235315+1244124"),  # digits of a name
        ("float32", "float64"),
        (TABLE, TABLE.rsplit("\n", 1)[0]),  # a missing row
        (
            TABLE,
            TABLE.replace("  86", "").replace("  12", "").replace("   n", ""),
        ),  # a missing column
        (TABLE, TABLE.replace("86", "87")),  # a wrong count
        (TABLE, TABLE.replace("4512.3", "4737.9")),  # off by 5 %
        (TABLE, TABLE.replace("2.51", "nan")),
        (HTML, HTML.replace("td", "th")),  # structure
        (HTML, HTML.replace('border="1"', 'border="2"')),
        ("1,900 stars", "1,899 stars"),
        ("1900.0", "1901.0"),  # a count, though pandas made it a float
        ("86 of 100", "86 of 101"),
        ("0.100", "0.105"),
        ("1.234", "1.238"),
        ("-0.012", "0.012"),  # a sign
        ("1.5e+03", "1.5e+04"),
        ("1e-17 erg/s", "2e-17 erg/s"),  # a unit
        ("5e-13", "6e-13"),  # a rounding error is no result: print that it is small
        ("12.5 %", "13.2 %"),
        ("0.0", "0.3"),
        ("a b", "a\nb"),  # line breaks
        ("", "1.5"),
    ],
)
def test_differences_are_seen(committed, new):
    assert not same(committed, new)
    assert not same(new, committed)
    assert list(mismatches(committed, new))


@pytest.mark.parametrize(
    ("committed", "new"),
    [
        ("scatter 26.4 K", "scatter 26.5 K"),  # the last digit
        (TABLE, TABLE.replace("4512.3", "4512.4").replace("2.51", "2.52")),
        (HTML, HTML.replace("4512.3", "4512.2")),
        ("1.000", "0.999"),
        ("0.91", "0.9"),  # one printed with fewer digits, as pandas does with 0.90
        ("a   1.5", "a 1.5"),  # alignment
        ("−0.002", "-0.003"),
        ("-0.0", "0.0"),
        ("1.7120e+04", "1.7121e+04"),
        ("15187.123456", "15187.123789"),  # single precision
        ("0.0", "0.1"),
        ("the same 86", "the same 86"),
    ],
)
def test_rounding_is_not_minded(committed, new):
    assert same(committed, new)
    assert same(new, committed)


def test_tags_relax_what_they_say_and_no_more():
    rounded, near = tolerance_of(["nbval-rounded"]), tolerance_of(["x", "nbval-within-20-percent"])
    assert (rounded, near) == ({"rounded": True, "within": 0}, {"rounded": False, "within": 20})
    assert same("26 K", "27 K", **rounded)
    assert not same("26 K", "30 K", **rounded)
    assert same("1.00", "1.19", **near)
    assert not same("1.00", "1.30", **near)
    assert not same("86 stars", "87 stars", **near), "a count stays exact"
    assert not same("scatter 1.00", "bias 1.00", **near)


@pytest.mark.parametrize(
    "bar",
    [
        "simulated survey: spectra: 100%|██████████| 1900/1900 [00:25<00:00, 74.36star/s]\n",
        "\r  0%|          | 0/30 [00:00<?, ?epoch/s]\r 10%|█         | 3/30 [00:01<00:10,  2.6epoch/s]",
        "12star [00:00, 30.1star/s]\n",
        "training: 4.2kB [00:01, 3.0kB/s]\r\x1b[A\n",
    ],
)
def test_bars_are_dropped_and_nothing_else(bar):
    streams = [
        new_output("stream", name="stderr", text=text) for text in (bar, bar + "a warning [1, 2]\n")
    ]
    (left,) = without_bars(streams)
    assert left.text.strip() == "a warning [1, 2]"
    assert not list(without_bars([new_output("display_data", {WIDGET: {}, "text/plain": "  0%|"})]))
    result = new_output("execute_result", {"text/plain": bar})
    assert list(without_bars([result])) == [result]


def test_the_message_says_where_and_why():
    (line,) = mismatches(TABLE, TABLE.replace("4388.1", "4390.1"))
    assert (
        line
        == "teff logg n M67 4512.3 2.51 86 M13 [4388.1 -> 4390.1] 1.97 12: 20 units of the last digit"
    )
    assert sum(1 for _ in mismatches(TABLE, TABLE.replace("86", "85").replace("12\n", "13\n"))) == 1


CELLS = {  # source: what is committed, and whether the cell must fail
    "print('scatter 26.4 K')": ("scatter 26.5 K\n", False),
    "print('scatter 26.6 K')": ("scatter 28.0 K\n", True),
    "print('86 stars')": ("87 stars\n", True),
    "print('a word')": ("one word\n", True),
    "print('one row')": ("one row\nanother\n", True),
    "import sys; print('done:  50%|##   | 1/2 [00:00<00:01, 9.1it/s]', file=sys.stderr); print(1.5)": (
        "1.5\n",
        False,
    ),
    "import sys; print('a remark', file=sys.stderr); print(2.5)": ("2.5\n", False),
    "import warnings; warnings.warn('so it is told'); print(2.5)": ("2.5\n", True),
}


def test_nbval_sees_the_same(tmp_path):
    """The plugin at work, in a run of pytest --nbval on a notebook with these outputs."""
    cells = [
        new_code_cell(
            source, outputs=[new_output("stream", name="stdout", text=text)], execution_count=number
        )
        for number, (source, (text, _)) in enumerate(CELLS.items(), start=1)
    ]
    cells.append(new_code_cell("1 / 0"))
    nbformat.write(new_notebook(cells=cells), tmp_path / "x.ipynb")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "-p",
        "nbval_numbers",
        "-rA",
        "--color=no",
        "x.ipynb",
    ]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            [str(TESTS), str(TESTS.parent / "tools"), os.environ.get("PYTHONPATH", "")]
        )
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    wrong = [f"Cell {number}" for number, (_, fails) in enumerate(CELLS.values()) if fails] + [
        f"Cell {len(CELLS)}"
    ]
    failed = [
        line.rpartition("::")[2] for line in done.stdout.splitlines() if line.startswith("FAILED")
    ]
    assert [name.partition(" - ")[0] for name in failed] == wrong, done.stdout
    assert "[28.0 -> 26.6] K: 14 units of the last digit" in done.stdout
    assert "UserWarning: so it is told" in done.stdout
