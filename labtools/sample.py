"""The lab's sample, ready for a model: selected giants and their normalized spectra, made once and kept."""

from labtools import apstar, continuum
from labtools.cache import cached
from labtools.selection import select_giants
from labtools.survey import left_out

__all__ = ["normalized_giants"]


def normalized_giants(survey, degree=2):
    """Catalogue and normalized spectra of the giants of a survey, the same stars in the same order.

    The spectra are kept in `cache` below the survey's root, under a name that depends on the survey, the stars, the
    continuum pixels and the code that made them. With stars missing from the archive nothing is kept, so that the
    next call asks for them again.

    Returns
    -------
    giants : DataFrame indexed by apogee_id (see `select_giants`).
    spectra : Dataset (star, wavelength) of `flux` and `error`, float32, pseudo-continuum = 1 (see `normalize`).
    """
    giants = select_giants(survey.catalog())
    pixels = survey.continuum_pixels()

    def build():
        spectra = continuum.normalize(survey.spectra(giants), pixels, degree)
        return spectra[["flux", "error"]].astype("float32")

    made_by = (
        survey.version,
        tuple(giants.index),
        giants.snr.to_numpy(),
        pixels.values,
        degree,
        apstar,
        continuum,
    )
    spectra = cached(
        survey.root / "cache",
        f"normalized-{survey.name}",
        build,
        *made_by,
        keep=lambda made: left_out(made).empty,
    )
    return giants.loc[spectra.star.values], spectra
