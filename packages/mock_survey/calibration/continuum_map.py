"""Find the continuum pixels that ship with the mock survey, and write data/continuum_pixels.npz.

The pixels are found on noise-free model spectra, so in the simulation they are right by
construction.
"""

import numpy as np
import xarray as xr

from apogee_archive.columns import LABELS
from apogee_archive.grid import GRID
from labtools.continuum import find_continuum_pixels, normalize
from mock_survey.archive import CONTINUUM_PIXELS, SEED
from mock_survey.population import draw_population
from mock_survey.synthesis import synthesize


def continuum_map():
    """The lab's own continuum pixels, a boolean DataArray over the 7214 wavelengths (Angstrom,
    vacuum) of `GRID`.

    They are found on noise-free model spectra as Ness et al. (2015, §5.3) do on real ones.
    """
    giants = draw_population(SEED).query("kind == 'giant' and anomaly == ''").iloc[::24]
    model = synthesize(giants[LABELS]).isel(wavelength=GRID)
    spectra = xr.Dataset({"flux": model, "error": xr.full_like(model, 0.005)})
    everywhere = xr.ones_like(model.wavelength, bool)
    for _ in range(3):
        upper = spectra.flux > spectra.flux.quantile(0.7, "wavelength")
        first = everywhere & (upper.mean("star") > 0.5)
        spectra = normalize(spectra, first)[["flux", "error"]]
    return find_continuum_pixels(spectra, giants)


def main():
    """Write the map; its arrays have the names of the course's own file."""
    pixels = continuum_map()
    np.savez(CONTINUUM_PIXELS, wavelengths=pixels.wavelength.values, trusted=pixels.values)
    print(f"{int(pixels.sum())} continuum pixels of {pixels.size}")


if __name__ == "__main__":
    main()
