"""Where stars come from: the one place that knows every source, and what the lab makes of them once and keeps."""

import gzip

from apogee_archive.apstar import parse_apstar, read_apstar
from apogee_archive.cache import Codec, cached
from apogee_archive.dr17 import SdssSurvey
from apogee_archive.jwst_pair import FILES, Pair, read_catalog, read_jwst
from apogee_archive.m71 import m71_spectra
from apogee_archive.settings import data_folders, setting, table
from apogee_archive.survey import left_out
from labtools.cannon import Cannon
from labtools.continuum import normalize
from labtools.selection import LABELS, select_giants, split_by_star
from mock_survey.survey import SimulatedSurvey

__all__ = [
    "lab_cannon",
    "left_out",
    "m71_spectra",
    "normalized_giants",
    "open_pair",
    "open_survey",
    "read_apstar",
    "real_mystery",
]

NORMALIZED = 3  # raise it whenever the same raw spectra give other normalized ones
TRAINED = 4  # raise it whenever the same normalized spectra give another model
SPLIT = 18  # seed that divides the giants; 2M03533659+2512012 falls into the training set


def open_survey(name=None, root=None):
    """The survey that the notebooks work on: a `apogee_archive.survey.Survey`.

    name : "simulated" or "dr17"; None takes LAB_SURVEY from the environment, or "simulated".
    root : folder of its files; None as in `apogee_archive.settings.data_folders`.

    It has `name`, `title` (for figures), `root`, `catalog()`, `spectra(ids)`, `mystery()` and `continuum_pixels()`.
    Raises ValueError for another name.
    """
    name = (name or setting("SURVEY", "simulated")).lower()
    surveys = {survey.name: survey for survey in (SimulatedSurvey, SdssSurvey)}
    if name not in surveys:
        raise ValueError(
            f"there is no survey {name!r}: set LAB_SURVEY to one of {', '.join(surveys)}"
        )
    return surveys[name](*data_folders(root))


def real_mystery():
    """The course's real mystery star, an SDSS/APOGEE spectrum that ships: Dataset as from `read_apstar`."""
    path = table("mystery_star.fits.gz")
    star = parse_apstar(gzip.decompress(path.read_bytes()), path.name)
    return star.assign_attrs(source="SDSS/APOGEE, the course's mystery star")


def normalized_giants(survey, degree=2):
    """Giants of a survey (see `select_giants`), and their normalized spectra (float32, see `normalize`), in one order.

    The spectra are kept in `cache` below the survey's root, under a name that depends on all that they are made of.
    With stars missing from the archive nothing is kept, so that the next call asks for them again.
    """
    giants = select_giants(survey.catalog())
    pixels = survey.continuum_pixels()

    def build():
        return normalize(survey.spectra(giants), pixels, degree)[["flux", "error"]].astype(
            "float32"
        )

    made_by = (
        NORMALIZED, survey.version, survey.fingerprint(giants), tuple(giants.index), giants.snr.to_numpy(),
        pixels.wavelength.values, pixels.values, degree,
    )  # fmt: skip
    folders, name = [folder / "cache" for folder in survey.folders], f"normalized-{survey.name}"
    spectra = cached(folders, name, build, *made_by, should_cache=lambda made: left_out(made).empty)
    return giants.loc[spectra.star.values], spectra


def lab_cannon(survey):
    """The Cannon of the lab, of five labels and trained once, and the stars of training and validation set."""
    giants, spectra = normalized_giants(survey)
    training, validation = split_by_star(giants.index, SPLIT)
    labels = giants.loc[training, LABELS]
    teach = spectra.sel(star=training)
    made_by = (
        TRAINED,
        tuple(training),
        labels.to_numpy(),
        *(teach[x].values for x in ("wavelength", "flux", "error")),
    )
    folders, codec = (
        [folder / "cache" for folder in survey.folders],
        Codec(".npz", Cannon.to_bytes, Cannon.from_bytes),
    )
    cannon = cached(
        folders, f"cannon-{survey.name}", lambda: Cannon.train(teach, labels), *made_by, codec=codec
    )
    return cannon, training, validation


def open_pair(root=None, stars=None, seed=42):
    """APOGEE stars and their JWST spectra: the real files if both are in the data folder, else a simulated pair.

    The simulated one has that many stars (2,000, with LAB_STARS fewer; at most 19,800, the size of the real catalog),
    is written once in the formats of the real files, and read from there. Raises CorruptFileError as the readers do, and
    FileNotFoundError if only one of the real files is there.
    """
    first, shared = data_folders(root)
    folders, title = (first, *shared), "JWST models of APOGEE stars"
    for folder in folders:
        there = [name for name in FILES if (folder / name).is_file()]
        if len(there) == 1:
            other = FILES[1 - FILES.index(there[0])]
            raise FileNotFoundError(
                f"{folder.name} holds {there[0]} but not {other}: put both there, or none"
            )
        if there:
            break
    else:
        from mock_survey.jwst_pair import pair_size, write_pair

        folder, title = (
            write_pair([f / "cache" for f in folders], stars or pair_size(), seed),
            "simulated JWST survey",
        )
    catalog, (labels, spectra) = read_catalog(folder / FILES[0]), read_jwst(folder / FILES[1])
    return Pair(title, catalog, labels, spectra.assign_attrs(source=title))
