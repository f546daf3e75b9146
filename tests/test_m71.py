"""The real JWST spectra that ship."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import labtools
from apogee_archive.m71 import LABELS, PACKED, m71_labels, m71_spectra, pack_m71
from apogee_archive.settings import table


def test_eight_stars_ship_in_less_than_a_megabyte():
    assert table(PACKED).stat().st_size + table(LABELS).stat().st_size < 1_000_000
    stars = labtools.m71_spectra()
    assert stars.sizes["star"] == 8
    good = np.isfinite(stars.error)
    assert good.sum("wavelength").min() > 1900
    assert not good.sum("star").max() > 1  # every wavelength is a pixel of one star
    assert (stars.flux.where(~good, 0) == 0).all()
    assert stars.teff.notnull().sum() == 7


def test_labels_are_those_of_the_cluster():
    labels = m71_labels()
    assert labels.index.is_unique
    assert labels.fe_h.between(-0.9, -0.6).all()
    assert labels.vhelio_avg.between(-26, -19).all()


def test_what_ships_is_what_the_files_hold(shared_data, tmp_path):
    folder = shared_data / "nirspec-m71"
    ours, files = m71_spectra(), m71_spectra(2, folder)
    assert ours.star.values.tolist() == files.star.values.tolist()
    np.testing.assert_array_equal(ours.wavelength, files.wavelength)
    np.testing.assert_allclose(ours.flux, files.flux, rtol=1e-6)
    np.testing.assert_allclose(ours.error, files.error, rtol=1e-6)
    pack_m71(folder, tmp_path)
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "m71_labels.csv", index_col="source"), m71_labels()
    )
    with np.load(tmp_path / "m71.npz") as made, np.load(table(PACKED)) as shipped:
        assert made.files == shipped.files
        assert all(np.array_equal(made[name], shipped[name]) for name in made.files)


def test_another_exposure_is_read_from_a_folder(shared_data, tmp_path):
    for path in sorted((shared_data / "nirspec-m71").glob("spec1d_*_00002_source_2609_[12]*.fits"))[
        :2
    ]:
        (tmp_path / path.name.replace("_00002_", "_00003_")).write_bytes(path.read_bytes())
    other = m71_spectra(3, tmp_path)
    shipped = m71_spectra().sel(star=other.star)
    assert other.attrs["exposure"] == 3
    xr.testing.assert_allclose(
        other.flux.where(np.isfinite(other.error), drop=True),
        shipped.flux.where(np.isfinite(shipped.error), drop=True),
    )


def test_a_folder_without_files_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no spec1d file of exposure 4"):
        m71_spectra(4, tmp_path)
