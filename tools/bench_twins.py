"""One star among many: seconds and memory of `labtools.twins` with 10^5 candidates (make bench)."""

import time
import tracemalloc

import dask.array as da
import numpy as np
import xarray as xr

import labtools
from labtools.jwst import match
from labtools.twins import BLOCK, TwoViews
from mock_survey.jwst_pair import SNR, apogee_spectra


def candidates(spectra: xr.Dataset, number: int, snr: float = 50.0) -> xr.Dataset:
    """JWST spectra (number, wavelength) that are made when they are asked for.

    Those of the pair over and over, each time with other noise.
    """
    copies = np.resize(np.arange(spectra.sizes["star"]), number)
    flux = da.from_array(spectra.flux.values, chunks=(BLOCK, -1))[copies].rechunk((BLOCK, -1))
    noise = da.random.default_rng(1).standard_normal(flux.shape, chunks=flux.chunks, dtype="f4")
    error = np.where((spectra.flux.values != 0).any(axis=0), 1 / snr, np.inf)
    arrays = {
        "flux": flux + np.float32(np.sqrt(snr**-2 - SNR**-2)) * noise,
        "error": np.broadcast_to(error, flux.shape),
    }
    coords = {"star": np.arange(number).astype(str), "wavelength": spectra.wavelength.values}
    return xr.Dataset({key: (("star", "wavelength"), x) for key, x in arrays.items()}, coords)


def rows(number: int = 100_000, queries: int = 100):
    """What is done, and how long it takes and how much memory."""
    pair = labtools.open_pair()
    names, _ = match(pair.catalog, pair.labels)
    apogee, jwst = apogee_spectra(pair.catalog, names), pair.spectra.sel(star=names)
    recorded = (jwst.flux != 0).any("star").values
    error = np.broadcast_to(np.where(recorded, 1 / SNR, np.inf), jwst.flux.shape)
    labels = pair.catalog.loc[names, ["teff", "logg", "fe_h"]].astype(float)
    start = time.perf_counter()
    model = TwoViews.train(apogee, jwst.assign(error=(jwst.flux.dims, error)), labels)
    yield f"twins: training, {len(names)} stars", f"{time.perf_counter() - start:.1f} s"
    many = candidates(jwst, number)
    tracemalloc.start()
    start = time.perf_counter()
    found = model.find(apogee.isel(star=slice(queries)), many)
    seconds, peak = time.perf_counter() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    of_itself = (found[1].astype(int) % len(names) == np.arange(queries)).mean()
    spectra = number * jwst.sizes["wavelength"] * 12  # flux and error, as they come
    yield f"twins: {queries} APOGEE stars among {number:,} JWST spectra", f"{seconds:.0f} s"
    yield "... memory, of which all spectra at once would take", f"{peak / spectra:.2f}"
    yield "... first partner a spectrum of the star itself", f"{of_itself:.2f}"


if __name__ == "__main__":
    for what, figure in rows():
        print(f"{what}: {figure}", flush=True)
