"""Real NIRSpec spectra, as PypeIt extracts them (`spec1d` files).

A file may hold several spectra: one per detector, or several traces that the extraction found in
one slit. `list_spec1d` says what is there, `read_spec1d` reads one of them.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from astropy.io import fits

from apogee_archive.errors import wrap_read_errors
from apogee_archive.fits_headers import fits_headers
from apogee_archive.limits import read_within

__all__ = ["list_spec1d", "read_spec1d"]

COLUMNS = ("WAVE", "COUNTS", "COUNTS_IVAR", "MASK")
EXTRACTIONS = ("OPT", "BOX")  # optimal (weighted by the profile), and the plain sum in a box
FEWEST_PIXELS = 100


def list_spec1d(path: str | Path) -> pd.DataFrame:
    """What spectra a PypeIt `spec1d` file holds.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    DataFrame
        One row per spectrum, the best first. The index is the pair of `name` (PypeIt's name, such
        as SPAT0011-SLIT0010-MSC01: position, slit, detector) and `extraction` ("OPT" or "BOX");
        columns are the number of `good` pixels, their median `snr`, `first` and `last` wavelength
        in Angstrom, and `weight` = good x snr², which orders the rows of one extraction. All
        optimal extractions come before the box extractions.

    Raises
    ------
    CorruptFileError
        If the file is damaged or holds no spectrum of at least 100 good pixels.
    FileNotFoundError
        If there is no such file.

    References
    ----------
    Prochaska et al. (2020, JOSS 5, 2308): PypeIt; Horne (1986, PASP 98, 609): optimal extraction.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "spec1d.fits"
    >>> columns = [fits.Column(f"OPT_{name}", kind, array=array) for name, kind, array in (
    ...     ("WAVE", "D", np.linspace(9700, 18000, 200)), ("COUNTS", "D", np.full(200, 50.0)),
    ...     ("COUNTS_IVAR", "D", np.ones(200)), ("MASK", "L", np.ones(200, bool)))]
    >>> table = fits.BinTableHDU.from_columns(columns, name="SPAT0011-SLIT0010-MSC01")
    >>> fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    >>> list_spec1d(path)[["good", "snr"]].iloc[0].tolist()
    [200.0, 50.0]
    >>> read_spec1d(path).flux.shape
    (1, 200)
    >>> folder.cleanup()
    """
    return _listed(_spectra(Path(path)))


def read_spec1d(
    path: str | Path, name: str | None = None, extraction: str | None = None
) -> xr.Dataset:
    """One spectrum of a PypeIt `spec1d` file.

    Parameters
    ----------
    path
        The file.
    name, extraction
        Which spectrum, as `list_spec1d` names it. Left out, it is the optimal extraction, or the
        box extraction if the file has no optimal one, and of several names the one with the largest
        number of good pixels times the square of their median signal-to-noise ratio.

    Returns
    -------
    Dataset (star, wavelength)
        `flux` and `error` in counts; wavelength in vacuum Angstrom, increasing, as the file gives
        it: not corrected for the velocity of the star. Masked pixels have flux 0 and error = inf.
        `attrs` say `name` and `extraction`.

    Raises
    ------
    CorruptFileError
        If the file is damaged or holds no spectrum of at least 100 good pixels.
    FileNotFoundError
        If there is no such file.
    KeyError
        If it does not hold the spectrum that was asked for; the message names those that it holds.

    Warns
    -----
    UserWarning
        If no name was given and the file holds several: it says which was taken and which not.

    Examples
    --------
    See `list_spec1d`.
    """
    path = Path(path)
    spectra = _spectra(path)
    table = _listed(spectra)
    if extraction is None:
        extraction = table.index[0][1]
    chosen = [key for key in table.index if key[1] == extraction and name in (None, key[0])]
    if not chosen:
        held = ", ".join(f"{one} ({kind})" for one, kind in table.index)
        raise KeyError(f"{path.name} has no {name or 'spectrum'} ({extraction}), but {held}")
    if len(chosen) > 1:
        said = [
            f"{key[0]} (S/N {row.snr:.0f} in {row.good} pixels, "
            f"{row['first']:.0f}-{row['last']:.0f} Angstrom)"
            for key, row in table.loc[chosen].iterrows()
        ]
        warnings.warn(
            f"{path.name} holds {len(chosen)} spectra; taken is {said[0]}, not "
            f"{', '.join(said[1:])}. Give name=... to choose",
            stacklevel=2,
        )
    return spectra[chosen[0]]


def _spectra(path: Path) -> dict[tuple[str, str], xr.Dataset]:
    """All usable spectra of a file, by name and extraction."""
    with wrap_read_errors(path.name, "a spec1d file of PypeIt"):
        content = read_within(path, "spectrum")
        fits_headers(content)  # checks every size before anything is made of it
        found = {}
        with fits.open(io.BytesIO(content), disable_image_compression=True) as hdus:
            star = str(hdus[0].header.get("TARGET", path.stem))
            for hdu in hdus[1:]:
                columns = set(getattr(getattr(hdu, "columns", None), "names", None) or ())
                for extraction in EXTRACTIONS:
                    if not {f"{extraction}_{column}" for column in COLUMNS} <= columns:
                        continue
                    spectrum = _read_table(hdu.data, extraction, star)
                    if spectrum is not None:
                        name = hdu.name if (hdu.name, extraction) not in found else f"{hdu.name}:2"
                        spectrum.attrs.update(name=name, extraction=extraction)
                        found[name, extraction] = spectrum
        if not found:
            raise ValueError(
                "it holds no extracted spectrum (OPT_WAVE, OPT_COUNTS, ...) with at least "
                f"{FEWEST_PIXELS} good pixels"
            )
    return found


def _listed(spectra: dict[tuple[str, str], xr.Dataset]) -> pd.DataFrame:
    """The table of `list_spec1d`."""
    rows = {}
    for key, spectrum in spectra.items():
        good = np.isfinite(spectrum.error.values[0])
        snr = float(np.median((spectrum.flux / spectrum.error).values[0, good]))
        first, last = spectrum.wavelength.values[[0, -1]]
        # Proportional to the sum of (flux / error)²: what the whole spectrum can tell
        weight = int(good.sum()) * max(snr, 0.0) ** 2
        rows[key] = [int(good.sum()), snr, float(first), float(last), weight]
    table = pd.DataFrame.from_dict(
        rows, orient="index", columns=["good", "snr", "first", "last", "weight"]
    )
    table.index = pd.MultiIndex.from_tuples(table.index, names=["name", "extraction"])
    best = sorted(rows, key=lambda key: (EXTRACTIONS.index(key[1]), -rows[key][-1]))
    return table.loc[best]


def _read_table(data: fits.FITS_rec, extraction: str, star: str) -> xr.Dataset | None:
    """One extraction of one table, None if it has too few good pixels."""
    wavelength, flux, weight = (
        np.asarray(data[f"{extraction}_{column}"], float) for column in COLUMNS[:3]
    )
    good = np.asarray(data[f"{extraction}_MASK"], bool)
    good &= np.isfinite(flux) & np.isfinite(weight) & (weight > 0)
    placed = np.isfinite(wavelength) & (wavelength > 1000)  # 0 where PypeIt has no wavelength
    if (good & placed).sum() < FEWEST_PIXELS:
        return None
    error = np.where(good, 1 / np.sqrt(np.where(good, weight, 1)), np.inf)
    order = np.flatnonzero(placed)[np.argsort(wavelength[placed], kind="stable")]
    order = order[np.r_[True, np.diff(wavelength[order]) > 0]]  # each wavelength once
    axes = ("star", "wavelength")
    return xr.Dataset(
        {
            "flux": (axes, np.where(good, flux, 0)[None, order]),
            "error": (axes, error[None, order]),
        },
        coords={"star": [star], "wavelength": wavelength[order]},
    )
