"""Where stars come from: the one place that knows every source.

`open_survey` gives APOGEE spectra, simulated or real; `open_pair` APOGEE stars beside their JWST
spectra. What the lab makes of a survey once and keeps is in `labtools.products`.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import xarray as xr

from apogee_archive.apstar import parse_apstar, read_apstar
from apogee_archive.dr17 import SdssSurvey
from apogee_archive.jwst_pair import FILES, Pair, read_catalog, read_jwst
from apogee_archive.m71 import m71_spectra
from apogee_archive.settings import data_folders, setting, table
from apogee_archive.survey import Survey, left_out
from mock_survey.survey import SimulatedSurvey

__all__ = [
    "left_out", "m71_spectra", "open_pair", "open_survey", "read_apstar", "real_mystery",
]  # fmt: skip

SURVEYS = {survey.name: survey for survey in (SimulatedSurvey, SdssSurvey)}


def open_survey(name: str | None = None, root: str | Path | None = None) -> Survey:
    """The survey that the notebooks work on.

    Parameters
    ----------
    name : {"simulated", "dr17"}, optional
        None takes LAB_SURVEY from the environment, or "simulated".
    root : str or Path, optional
        Folder of its files; None takes that of `apogee_archive.settings.data_folders`.

    Returns
    -------
    apogee_archive.survey.Survey
        With `name`, `title` (for figures), `root`, `catalog()`, `spectra(ids)`, `mystery()` and
        `continuum_pixels()`. Nothing is read, made or fetched before one of these is called.

    Raises
    ------
    ValueError
        For another name.

    Examples
    --------
    >>> open_survey("dr17").title
    'APOGEE DR17'
    """
    name = (name or setting("SURVEY", "simulated")).lower()
    if name not in SURVEYS:
        raise ValueError(
            f"there is no survey {name!r}: set LAB_SURVEY to one of {', '.join(SURVEYS)}"
        )
    return SURVEYS[name](*data_folders(root))


def real_mystery() -> xr.Dataset:
    """The course's real mystery star, an SDSS/APOGEE spectrum that ships with the lab.

    Returns
    -------
    xarray.Dataset
        One star, as from `read_apstar`.

    Examples
    --------
    >>> dict(real_mystery().sizes)
    {'star': 1, 'wavelength': 8575}
    """
    path = table("mystery_star.fits.gz")
    star = parse_apstar(gzip.decompress(path.read_bytes()), path.name)
    return star.assign_attrs(source="SDSS/APOGEE, the course's mystery star")


def open_pair(root: str | Path | None = None, stars: int | None = None, seed: int = 42) -> Pair:
    """APOGEE stars and their JWST spectra: the real files if both are here, else a simulated pair.

    The simulated one is written once, in the formats of the real files, and read from there.

    Parameters
    ----------
    root : str or Path, optional
        Folder of the files; None takes that of `apogee_archive.settings.data_folders`.
    stars : int, optional
        Size of a simulated pair, 10 to 19,800 (the size of the real catalog). None makes 2,000, or
        fewer in proportion to LAB_STARS.
    seed : int
        Of a simulated pair.

    Returns
    -------
    apogee_archive.jwst_pair.Pair
        `title`, `catalog`, `labels` and `spectra`.

    Raises
    ------
    FileNotFoundError
        If only one of the real files is there.
    CorruptFileError
        If a file is damaged or something else. The simulated files are under checksums.
    """
    # One's own folder comes before shared ones; the first that holds real files is taken
    first, shared = data_folders(root)
    folders = (first, *shared)
    for folder in folders:
        there = [name for name in FILES if (folder / name).is_file()]
        if len(there) == 1:
            other = FILES[1 - FILES.index(there[0])]
            raise FileNotFoundError(
                f"{folder.name} holds {there[0]} but not {other}: put both there, or none"
            )
        if there:
            title = "JWST models of APOGEE stars"
            break
    else:
        from mock_survey.jwst_pair import pair_size, write_pair

        size = pair_size() if stars is None else int(stars)
        folder = write_pair([one / "cache" for one in folders], size, int(seed))
        title = "simulated JWST survey"
    catalog, (labels, spectra) = read_catalog(folder / FILES[0]), read_jwst(folder / FILES[1])
    return Pair(title, catalog, labels, spectra.assign_attrs(source=title))
