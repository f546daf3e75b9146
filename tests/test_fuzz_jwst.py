"""Damaged files of the JWST pair and of NIRSpec: CorruptFileError or a table that can be used, and some of each.

LAB_FUZZ is the number of damaged files for each reader (300 if it is not set). They are read in a process of its own
with little memory: a reader that hangs, takes memory without limit or brings the process down fails too.
"""

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits

from apogee_archive.settings import setting
from subprocess_limits import run_limited

MUTATIONS = int(setting("FUZZ", "300"))
IMPORTS = """
import sys
from collections import Counter
import numpy as np
import pandas as pd
from pathlib import Path
from apogee_archive.errors import CorruptFileError
from apogee_archive.hdf5_frames import read_frame
from apogee_archive.nirspec import read_spec1d
from test_fuzz_jwst import mutated, trusted_frame, trusted_spectrum
"""
LOOP = """
whole, number, folder = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
read, trusted = (read_spec1d, trusted_spectrum) if whole.suffix == ".fits" else (read_frame, trusted_frame)
content, path, counts = whole.read_bytes(), folder / f"damaged{whole.suffix}", Counter()
for seed in range(number):
    path.write_bytes(mutated(content, np.random.default_rng(seed)))
    try:
        result = read(path, "allstar") if whole.suffix == ".h5" else read(path)
    except CorruptFileError as fault:
        assert path.name in str(fault), fault
        counts["refused"] += 1
    except BaseException as fault:
        raise AssertionError(f"seed {seed}") from fault
    else:
        trusted(result)
        counts["read"] += 1
print(counts["refused"], counts["read"])
"""


def mutated(content, rng):
    """Bytes with some overwritten, cut out, put in, or missing at the end; where the file is not zero, mostly."""
    content = bytearray(content)
    used = np.flatnonzero(np.frombuffer(bytes(content), np.uint8))
    for _ in range(rng.integers(1, 4)):
        at = int(rng.choice(used) if rng.random() < 0.9 else rng.integers(len(content)))
        new = rng.bytes(rng.integers(1, 9))
        kind = rng.choice(
            ["set", "flip", "digits", "cut", "add", "end"], p=[0.3, 0.3, 0.3, 0.04, 0.03, 0.03]
        )
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << rng.integers(8)
        elif kind == "end":
            del content[at:]
        else:
            new = rng.choice([b"999999999", b"-1", b"0", b"1E400"]) if kind == "digits" else new
            content[at : at + (0 if kind == "add" else len(new))] = b"" if kind == "cut" else new
    return bytes(content)


def trusted_frame(table):
    assert isinstance(table, pd.DataFrame)
    assert table.columns.is_unique
    assert {values.dtype.kind for _, values in table.items()} <= set("iufbO")
    text = [value for _, values in table.select_dtypes(object).items() for value in values]
    assert all(value is None or isinstance(value, str | bytes) for value in text)


def trusted_spectrum(spectrum):
    assert np.isfinite(spectrum.flux).all()
    assert (spectrum.error > 0).all()
    assert (np.diff(spectrum.wavelength) > 0).all()


@pytest.fixture
def table_file(tmp_path):
    """A table of numbers and text as pandas writes it."""
    table = pd.DataFrame(
        {"teff": np.arange(20.0), "name": [f"star{i}".encode() for i in range(20)]}
    )
    table.to_hdf(tmp_path / "table.h5", key="allstar", format="fixed")
    return tmp_path / "table.h5"


@pytest.fixture
def spectrum_file(tmp_path):
    """A spec1d file with two extractions in the form of PypeIt."""
    rng = np.random.default_rng(0)
    hdus = [fits.PrimaryHDU(header=fits.Header({"TARGET": "2609_49"}))]
    for _ in range(2):
        wave, counts = np.linspace(9600, 11000, 200), rng.normal(100, 1, 200)
        columns = [
            fits.Column("OPT_WAVE", "D", array=wave), fits.Column("OPT_COUNTS", "D", array=counts),
            fits.Column("OPT_COUNTS_IVAR", "D", array=np.ones(200)),
            fits.Column("OPT_MASK", "L", array=rng.random(200) < 0.95),
            fits.Column("OPT_FRAC", "D", array=counts / 200),
        ]  # fmt: skip
        hdus.append(fits.BinTableHDU.from_columns(columns))
    fits.HDUList(hdus).writeto(tmp_path / "spec1d.fits")
    return tmp_path / "spec1d.fits"


@pytest.mark.filterwarnings("ignore::pandas.errors.PerformanceWarning")
@pytest.mark.parametrize("kind", ["table_file", "spectrum_file"])
def test_damaged_files_are_refused_or_can_be_used(kind, request, tmp_path):
    whole = request.getfixturevalue(kind)
    (line,) = run_limited(IMPORTS, LOOP, whole, MUTATIONS, tmp_path, seconds=60 + MUTATIONS)
    refused, read = map(int, line.split())
    assert refused > 0.1 * MUTATIONS
    assert read > 0.1 * MUTATIONS, "files that survive are what is tested"


@pytest.mark.parametrize(
    ("card", "value"),
    [
        ("NAXIS", 1_000_000_000),
        ("NAXIS1", 10**12),
        ("NAXIS2", -5),
        ("TFIELDS", 10**9),
        ("PCOUNT", 10**15),
        ("BITPIX", "x"),
    ],
)
def test_headers_of_spectra_are_not_believed(spectrum_file, tmp_path, card, value):
    content = spectrum_file.read_bytes()
    at = content.index(f"{card:8s}= ".encode(), 2880)
    new = f"{card:8s}= {value!r:>20s}".encode()
    path = tmp_path / "forged.fits"
    path.write_bytes(content[:at] + new + content[at + len(new) :])
    code = (
        "\ntry:\n    read_spec1d(sys.argv[1])\nexcept CorruptFileError as fault:\n    print(fault)"
    )
    (line,) = run_limited(IMPORTS, code, path, seconds=60)
    assert line.startswith("forged.fits")
