"""Real JWST spectra that ship: giants of the globular cluster M71, observed by APOGEE too."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from apogee_archive import npz
from apogee_archive.errors import wrap_read_errors
from apogee_archive.nirspec import read_spec1d
from apogee_archive.settings import data_folders, table

__all__ = ["m71_labels", "m71_spectra", "pack_m71"]

PACKED = "m71/m71.npz"
LABELS = "m71/m71_labels.csv"
SHIPPED = 2  # the exposure that is packed
LARGEST = 10_000_000  # bytes of the packed file when it is unpacked
NAME = re.compile(r"spec1d_jw02609006001_\d+_(\d+)_source_(2609_\w+)\.fits")


def m71_spectra(exposure: int = SHIPPED, folder: str | Path | None = None) -> xr.Dataset:
    """Spectra of giants in M71 by JWST/NIRSpec (G140H, R about 2,700), as PypeIt extracted them.

    Exposure 2 ships with the lab. Others are read from files of one's own, in the same way.

    Parameters
    ----------
    exposure : int
        Which of the exposures of observation 6 of programme 2609.
    folder : path, optional
        Where the files ``spec1d_jw02609006001_…_source_….fits`` are; by default ``nirspec-m71`` in
        the data folder. A folder that is named is read for exposure 2 as well.

    Returns
    -------
    Dataset
        `flux` and `error` in counts (star, wavelength), in the observed frame; wavelength in vacuum
        Angstrom. Each star has pixels of its own: the wavelengths are those of all stars together,
        and `error` is infinite where a star has no pixel, or one that PypeIt masks. APOGEE's labels
        lie beside them as variables of `star`: `teff` (K), `logg` (dex), `fe_h`, `mg_fe`, …;
        NaN for the star that APOGEE has not observed.

    Raises
    ------
    FileNotFoundError
        If the folder holds no file of that exposure.
    CorruptFileError
        If a file is damaged.

    References
    ----------
    JWST programme 2609; reduced by the StarCLIP project, github.com/navawolfish/StarCLIP.

    Examples
    --------
    >>> m71 = m71_spectra()
    >>> star = m71.sel(star="2609_27")
    >>> star = star.isel(wavelength=np.isfinite(star.error))
    >>> star.sizes["wavelength"], round(float(star.teff)), round(float(star.wavelength[0]))
    (3731, 4749, 9668)
    """
    if folder is None and exposure == SHIPPED:
        stars = _unpack(table(PACKED))
    else:
        folder = Path(folder) if folder else data_folders()[0] / "nirspec-m71"
        stars = [read_spec1d(path) for path in _files(folder, exposure)]
    joined = _join(stars)
    labels = m71_labels().reindex(joined.star.values).rename_axis("star")
    variables = {name: ("star", labels[name].to_numpy()) for name in labels}
    return joined.assign(variables).assign_attrs(
        source="JWST/NIRSpec, M71", units="counts", exposure=exposure
    )


def m71_labels() -> pd.DataFrame:
    """What APOGEE DR17 says of the stars that both telescopes have observed.

    Returns
    -------
    DataFrame
        Indexed by source (``2609_27``); `apogee_id`, `teff` (K), `logg` (dex), `snr` of the APOGEE
        spectrum, `vhelio_avg` (km/s), `m_h`, `alpha_m`, `fe_h` and 17 ratios ``x_fe`` (dex).

    Examples
    --------
    >>> m71_labels().loc["2609_27", ["teff", "fe_h"]].tolist()
    [4749.2974, -0.73418]
    """
    return pd.read_csv(table(LABELS), index_col="source")


def pack_m71(folder: str | Path, out: str | Path) -> None:
    """Write the file that ships, from the ``spec1d`` files of exposure 2.

    Parameters
    ----------
    folder : path
        Where the files are, and the table ``M71_xmatch_sources.csv`` of the stars in common.
    out : path
        Folder for ``m71.npz`` and ``m71_labels.csv``.

    Raises
    ------
    FileNotFoundError
        If the folder holds none of them.
    """
    stars = [read_spec1d(path) for path in _files(Path(folder), SHIPPED)]
    good = [np.isfinite(star.error.values[0]) for star in stars]
    weight = [
        np.where(g, star.error.values[0] ** -2.0, 0) for g, star in zip(good, stars, strict=True)
    ]
    # Spectra differ in length: they are packed end to end, and `pixels` says where each one ends
    np.savez_compressed(
        Path(out) / "m71.npz",
        star=np.array([str(star.star.values[0]) for star in stars]),
        pixels=np.array([g.size for g in good]),
        wavelength=np.concatenate([star.wavelength.values for star in stars]),
        counts=np.concatenate([star.flux.values[0] for star in stars]).astype(np.float32),
        inverse_variance=np.concatenate(weight).astype(np.float32),
        mask=np.concatenate(good),
    )
    labels = pd.read_csv(Path(folder) / "M71_xmatch_sources.csv").rename(
        columns={"source_name": "source"}
    )
    kept = ["apogee_id", "teff", "logg", "snr", "vhelio_avg", "m_h", "alpha_m", "fe_h"]
    kept += [name for name in labels if name.endswith("_fe")]
    labels.set_index("source")[kept].to_csv(Path(out) / "m71_labels.csv")


def _unpack(path):
    """The stars of the packed file, each a Dataset as `read_spec1d` gives it."""
    with wrap_read_errors(path.name, "the packed spectra of M71"):
        parts = npz.arrays(path, LARGEST)
        ends = np.cumsum(parts["pixels"])
        stars = []
        for name, start, end in zip(parts["star"], ends - parts["pixels"], ends, strict=True):
            flux, weight, good = (
                parts[key][start:end] for key in ("counts", "inverse_variance", "mask")
            )
            error = np.where(good, 1 / np.sqrt(np.where(good, weight, 1).astype(float)), np.inf)
            values = {"flux": flux.astype(float), "error": error}
            arrays = {key: (("star", "wavelength"), value[None]) for key, value in values.items()}
            coords = {"star": [str(name)], "wavelength": parts["wavelength"][start:end]}
            stars.append(xr.Dataset(arrays, coords))
    return stars


def _files(folder, exposure):
    """The files of an exposure, by the number of the source."""
    named = [(NAME.fullmatch(path.name), path) for path in sorted(folder.glob("spec1d_*.fits"))]
    found = [path for match, path in named if match and int(match[1]) == exposure]
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no spec1d file of exposure {exposure} "
            f"(spec1d_jw02609006001_03101_{exposure:05d}_source_….fits)"
        )
    return found


def _join(stars):
    """One Dataset of all stars: every pixel keeps its wavelength, and belongs to one star."""
    wavelength = np.unique(np.concatenate([star.wavelength.values for star in stars]))
    flux, error = (
        np.zeros((len(stars), wavelength.size)),
        np.full((len(stars), wavelength.size), np.inf),
    )
    for row, star in enumerate(stars):
        place = np.searchsorted(wavelength, star.wavelength.values)
        flux[row, place], error[row, place] = star.flux.values[0], star.error.values[0]
    axes, names = ("star", "wavelength"), [str(star.star.values[0]) for star in stars]
    coords = {"star": names, "wavelength": wavelength}
    return xr.Dataset({"flux": (axes, flux), "error": (axes, error)}, coords)


if __name__ == "__main__":
    import sys

    pack_m71(sys.argv[1], Path(__file__).parent / "data" / "m71")
