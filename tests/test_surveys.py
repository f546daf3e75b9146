"""The sample of the notebooks: the same stars in catalog and spectra, made again when the survey changes."""

import numpy as np
import pandas as pd
import pytest

import labtools.products
from apogee_archive.cache import hash_key
from labtools import (
    normalize,
    normalized_giants,
    open_survey,
    select_giants,
    split_by_star,
)
from labtools.products import split_seed


@pytest.fixture(scope="module")
def survey():
    return open_survey("simulated")


def test_it_is_what_the_steps_give_one_by_one(survey):
    giants, spectra = normalized_giants(survey)
    assert giants.index.tolist() == spectra.star.values.tolist()
    assert giants.equals(select_giants(survey.catalog()))
    some = giants.iloc[::400]
    again = normalize(survey.spectra(some), survey.continuum_pixels())
    np.testing.assert_allclose(spectra.flux.sel(star=some.index), again.flux, atol=1e-6)
    np.testing.assert_allclose(spectra.error.sel(star=some.index), again.error, rtol=1e-5)


def test_another_version_of_the_survey_is_not_served_from_the_cache(survey, monkeypatch):
    _, spectra = normalized_giants(survey)
    made_by = []

    def record(folders, name, build, *parts, should_cache=None):
        made_by.append(parts)
        return spectra

    monkeypatch.setattr(labtools.products, "cached", record)
    normalized_giants(survey)
    monkeypatch.setattr(type(survey), "version", "another")
    normalized_giants(survey)
    first, second = (repr(parts) for parts in made_by)
    assert first != second


def test_the_cannon_is_trained_anew_for_other_wavelengths(survey, monkeypatch):
    """A processor on which a wavelength has another last bit must not be served the model of another one."""
    giants, spectra = normalized_giants(survey)
    keys = []
    monkeypatch.setattr(
        labtools.products,
        "cached",
        lambda folders, name, build, *parts, codec: keys.append(hash_key(*parts)),
    )
    for wavelength in (
        spectra.wavelength,
        np.nextafter(spectra.wavelength, np.inf),
        spectra.wavelength,
    ):
        moved = spectra.assign_coords(wavelength=wavelength.values)
        monkeypatch.setattr(
            labtools.products, "normalized_giants", lambda survey, moved=moved: (giants, moved)
        )
        labtools.lab_cannon(survey)
    assert keys[0] == keys[2] != keys[1]


def test_the_star_of_problem_7_is_in_the_training_set_whatever_the_sample():
    rng = np.random.default_rng(5)
    for _ in range(8):
        numbers = rng.choice(10_000, 40, replace=False)
        stars = pd.Index([f"2M{number:08d}+0000000" for number in numbers])
        stars = stars.append(pd.Index(["2M03533659+2512012"]))
        training, _ = split_by_star(stars, split_seed(stars))
        assert "2M03533659+2512012" in training
    assert split_seed(stars[:-1]) == 18
