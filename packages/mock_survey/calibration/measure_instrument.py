"""What real APOGEE spectra say about the instrument, for the choices in `mock_survey.instrument`.

Two visits of one star differ by noise and by the response of the instrument alone, whatever the
star's lines. On such differences (real files of several visits) it measures

  - the correlation of noise between neighbouring pixels, and the variance in units of the quoted
    one;
  - the ripple that is left of the ratio of both after a polynomial of degree 2 for each chip: its
    size (for one visit, after what noise of that width leaves) and the number of its waves;

and from the headers the full width at half maximum of the line spread function, fibre by fibre
(Gauss-Hermite series of Nidever et al. 2015, section 6.3).

    python packages/mock_survey/calibration/measure_instrument.py FOLDER_OF_APSTAR_FILES...
"""

import argparse
from itertools import combinations
from math import factorial
from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.polynomial import chebyshev, hermite_e
from scipy.ndimage import gaussian_filter1d

from apogee_archive.bitmasks import LAB_BITS
from apogee_archive.grid import GRID, WAVELENGTH
from labtools.spectra import chips

CHIP_PIXELS = [GRID[chip] for chip in chips(WAVELENGTH[GRID])]
SMOOTH = 40  # pixels, sigma


def pairs(path):
    """Every two visits of a file on every chip: (flux, flux, error, error, good)."""
    with fits.open(path) as hdus:
        flux, error, mask = (np.atleast_2d(hdus[number].data).astype(float) for number in (1, 2, 3))
    good = (mask.astype(int) & int(LAB_BITS) == 0) & (flux > 0) & (error < 1e5)
    for a, b in combinations(range(2, len(flux)), 2):
        for chip in CHIP_PIXELS:
            use = good[a, chip] & good[b, chip]
            for row in (a, b):
                use &= error[row, chip] < 1.5 * np.median(error[row, chip][use])
            yield flux[a, chip], flux[b, chip], error[a, chip], error[b, chip], use


def difference(pair, degree):
    """Relative difference of two visits, but for a polynomial, and its quoted error; (pixel,), 0
    where bad."""
    one, two, sigma_one, sigma_two, use = pair
    x, two = np.linspace(-1, 1, len(one)), np.where(use, two, 1)
    ratio = np.where(use, one / two, 1)
    fit = chebyshev.chebval(x, chebyshev.chebfit(x[use], ratio[use], degree))
    sigma = np.hypot(sigma_one / np.where(use, one, 1), sigma_two / two)
    return np.where(use, ratio / fit - 1, 0), np.where(use, sigma, 1)


def noise(pair):
    """Variance in units of the quoted one, and the correlation at distances of 1 to 4 pixels."""
    apart, sigma = difference(pair, 12)
    use = pair[-1] & (np.abs(apart) < 5 * sigma)
    pull = np.where(use, apart / sigma, 0)
    moments = [
        (pull[k:] * pull[: len(pull) - k])[use[k:] & use[: len(use) - k]].mean() for k in range(5)
    ]
    return moments[0], *np.array(moments[1:]) / moments[0]


def ripple(pair):
    """Ripple of one visit (relative), what noise would leave of it, and its waves on the chip."""
    apart, _ = difference(pair, 2)
    share = gaussian_filter1d(pair[-1].astype(float), SMOOTH)
    smooth = gaussian_filter1d(apart, SMOOTH) / share.clip(0.3)
    fine = gaussian_filter1d(np.where(pair[-1], apart - smooth, 0), SMOOTH / 4)
    waves = np.sum(np.diff(np.sign(smooth)) != 0) / 2
    # A difference of two visits has the ripples of both: one of them alone is smaller by √2
    return smooth.std() / np.sqrt(2), fine.std() / 2 / np.sqrt(2), waves


def width(path):
    """Full width at half maximum (pixels) of the line spread function that the file gives for its
    middle chip."""
    with fits.open(path) as hdus:
        numbers = np.asarray(hdus[8].data, float).ravel()
    orders = numbers[3 : 4 + int(numbers[2])].astype(int) + 1
    first = 4 + int(numbers[2]) + np.r_[0, np.cumsum(orders)]
    sigma, *shape = numbers[first[:-1]]
    x = np.linspace(-6, 6, 4001)
    series = [1.0, *(h / np.sqrt(factorial(n)) for n, h in enumerate(shape, 1))]
    profile = np.exp(-0.5 * (x / sigma) ** 2) * hermite_e.hermeval(x / sigma, series)
    return np.ptp(x[profile > profile.max() / 2])


def main():
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    paths = [
        path for folder in parser.parse_args().folders for path in sorted(folder.glob("*.fits"))
    ]
    both = [pair for path in paths for pair in pairs(path)]
    bright = [pair for pair in both if np.median((pair[0] / pair[2])[pair[-1]]) > 15]
    table = np.array([noise(pair) for pair in bright])
    print(f"{len(bright)} pairs of visits and chips with a signal-to-noise ratio above 15")
    print(
        "variance over the quoted one, correlation at 1 to 4 pixels: median",
        np.median(table, axis=0).round(2),
    )
    print("    16 and 84 per cent", np.percentile(table, [16, 84], axis=0).round(2).tolist())
    waves = np.array([ripple(pair) for pair in bright])
    print("ripple of a visit, noise in it, waves a chip: median", np.median(waves, axis=0).round(4))
    widths = np.array([width(path) for path in paths])
    print(
        "width of the line spread function, pixels:",
        widths.round(2),
        f"spread {widths.std() / widths.mean():.0%}",
    )


if __name__ == "__main__":
    main()
