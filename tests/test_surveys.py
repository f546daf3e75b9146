"""The sample of the notebooks: the same stars in catalogue and spectra, made again when the survey changes."""

import numpy as np
import pytest

import labtools.surveys
from labtools import normalize, normalized_giants, open_survey, select_giants


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

    def record(folder, name, build, *parts, keep):
        made_by.append(parts)
        return spectra

    monkeypatch.setattr(labtools.surveys, "cached", record)
    normalized_giants(survey)
    monkeypatch.setattr(type(survey), "version", "another")
    normalized_giants(survey)
    first, second = (repr(parts) for parts in made_by)
    assert first != second
