"""The forward model: physics against hand calculations and published values, spectra against real
giants."""

import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from line_sources import air_to_vacuum

from labtools.spectra import WAVELENGTH
from mock_survey import atmosphere, synthesis
from mock_survey.synthesis import read_lines, synthesize

CALIBRATION = Path(synthesis.__file__).parent / "calibration"
CHIPS = ((322, 3242), (3648, 6048), (6412, 8306))
PIXELS = np.concatenate([np.arange(*chip) for chip in CHIPS])


def stars(*rows):
    table = pd.DataFrame(rows, columns=["teff", "logg", "fe_h", "mg_fe"], dtype=float)
    return table.assign(si_fe=table["mg_fe"])


GIANT = stars((4467, 2.03, -0.51, 0.23))


def one_line(species, ep, loggf, wavelength=16000.0):
    return pd.DataFrame({"species": [species], "wavelength": wavelength, "ep": ep, "loggf": loggf})


def equivalent_width(labels, lines):
    wave = np.arange(lines["wavelength"].min() - 8, lines["wavelength"].max() + 8, 0.1)
    return 0.1 * (1 - synthesize(labels, wave, lines=lines).values.astype(float)).sum(axis=1)


# Physics


def test_saha_against_hand_calculation():
    # log (n_ion / n_atom P_e) = -theta I + 2.5 log T - 0.1762 + log (u_ion / u_atom), here sodium
    # at 5040 K
    by_hand = -5.139 + 2.5 * np.log10(5040.0) - 0.1762 + np.log10(1.0 / 2.04)
    pressure = atmosphere.saha(5040.0, 5.139, 2.04, 1.0) * 1.380649e-16 * 5040.0
    assert np.log10(pressure) == pytest.approx(by_hand, abs=0.002)


@pytest.mark.parametrize("temperature", [4000.0, 5040.0, 6300.0])
@pytest.mark.parametrize("wavelength", [8000.0, 12000.0, 16000.0])
def test_h_minus_against_polynomials_of_gray(wavelength, temperature):
    """Gray (2005) eq. 8.12 (bound-free, before stimulated emission) and 8.13 (free-free)."""
    theta, x = 5040.0 / temperature, np.log10(wavelength)
    f0 = -2.2763 - 1.6850 * x + 0.76661 * x**2 - 0.053346 * x**3
    f1 = 15.2827 - 9.2846 * x + 1.99381 * x**2 - 0.142631 * x**3
    f2 = -197.789 + 190.266 * x - 67.9775 * x**2 + 10.6913 * x**3 - 0.625151 * x**4
    free = 1e-26 * 10 ** (f0 + f1 * np.log10(theta) + f2 * np.log10(theta) ** 2)
    series = (
        1.99654,
        -1.18267e-5,
        2.64243e-6,
        -4.40524e-10,
        3.23992e-14,
        -1.39568e-18,
        2.78701e-23,
    )
    cross_section = 1e-18 * np.polynomial.polynomial.polyval(wavelength, series)
    bound = 4.158e-10 * cross_section * theta**2.5 * 10 ** (0.754 * theta)
    bound *= 1 - np.exp(-1.4388e8 / (wavelength * temperature))
    assert atmosphere.h_minus_free_free(wavelength / 1e4, temperature) == pytest.approx(
        free, rel=0.01
    )
    assert atmosphere.h_minus_bound_free(wavelength / 1e4, temperature) == pytest.approx(
        bound, rel=0.03
    )


def photosphere(teff, logg, fe_h=0.0):
    labels = synthesis.complete_labels(stars((teff, logg, fe_h, 0.0)))
    abundance = atmosphere.abundances(labels)
    return atmosphere.photosphere(
        labels.teff.to_numpy(), labels.logg.to_numpy(), abundance
    ), abundance


def test_pressure_of_the_solar_photosphere():
    """log P = 5.08 at tau = 1 in the Sun (Gray 2005, table 9.2: 5.0 to 5.1), where a tenth of the
    atoms is helium."""
    sun, _ = photosphere(5772.0, 4.44)
    pressure = 1.085 * (sun.nuclei * 1.380649e-16 * sun.temperature)[0]
    assert np.log10(pressure[6]) == pytest.approx(5.08, abs=0.05)
    assert (np.diff(pressure) > 0).all()


@pytest.mark.parametrize(
    ("teff", "logg", "fe_h"), [(4000.0, 1.0, 0.0), (4500.0, 2.0, -0.3), (5500.0, 3.5, -2.0)]
)
def test_electrons_balance_ions(teff, logg, fe_h):
    """The electrons of MARCS are those that the lab's partition functions and Saha's equation give,
    to a fifth."""
    layers, abundance = photosphere(teff, logg, fe_h)
    ions = 0.0
    for element in ("H", *atmosphere.DONORS):
        _, energy, _, u, p, u_ion, p_ion = atmosphere.ATOMS[element]
        x = layers.temperature / 5040
        ratio = (
            atmosphere.saha(layers.temperature, energy, u * x**p, u_ion * x**p_ion)
            / layers.electrons
        )
        ions = ions + abundance[element] * layers.nuclei * ratio / (1 + ratio)
    np.testing.assert_allclose(ions, layers.electrons, rtol=0.2)


def test_beyond_the_grid_its_edge_is_taken():
    for inside, outside in (((4000, 0, 0), (4000, -1, 0)), ((5000, 2, -2.5), (5000, 2, -4))):
        for one, other in zip(photosphere(*inside)[0], photosphere(*outside)[0], strict=True):
            np.testing.assert_allclose(one, other, rtol=0.02)


@pytest.mark.parametrize(
    ("species", "ep", "loggf"), [("CO", 0.5, -7.0), ("OH", 0.5, -5.6), ("Ti I", 1.5, -3.0)]
)
def test_cooler_stars_show_stronger_molecules_and_low_excitation(species, ep, loggf):
    labels = stars((5000, 2.5, 0, 0), (4500, 2.5, 0, 0), (4000, 2.5, 0, 0))
    assert (np.diff(equivalent_width(labels, one_line(species, ep, loggf))) > 0).all()


def test_brackett_lines_grow_with_temperature_and_stay_weak_in_giants():
    brackett = read_lines().query("species == 'H I' and wavelength < 16900")
    wave = np.arange(16090.0, 16135.0, 0.2)
    depth = 1 - synthesize(
        stars((4200, 2, 0, 0), (5000, 3, 0, 0), (6400, 4, 0, 0)), wave, lines=brackett
    ).values.min(axis=1)
    assert depth[0] < 0.02
    assert depth[0] < depth[1] < depth[2]
    assert depth[2] > 0.03


def test_strong_lines_get_wings_from_pressure():
    """Unsöld's width of iron at 5.5 eV by hand; wings of a strong line grow with gravity, its core
    does not."""
    assert np.log10(synthesis._van_der_waals(7.90 - 5.5, 16000.0)) == pytest.approx(-7.13, abs=0.03)
    wave = np.arange(15990.0, 16010.0, 0.1)
    strong = one_line("Mg I", 5.93, 0.6)
    low, high = synthesize(stars((4500, 1.5, 0, 0), (4500, 3.0, 0, 0)), wave, lines=strong).values
    assert 1 - high[75] > 1.3 * (1 - low[75]) > 0.01
    assert high[100] == pytest.approx(low[100], abs=0.03)


def test_weak_lines_grow_with_strength_and_strong_ones_saturate():
    width = [
        equivalent_width(GIANT, one_line("Fe I", 5.0, gf))[0] for gf in (-4.0, -3.7, -0.5, -0.2)
    ]
    assert np.log10(width[1] / width[0]) == pytest.approx(0.3, abs=0.03)
    assert np.log10(width[3] / width[2]) < 0.15


@pytest.mark.parametrize(
    ("element", "line"), [("mg", 15753.20), ("mg", 15770.11), ("si", 16099.18)]
)
def test_gradient_is_centred_on_the_vacuum_wavelength(element, line):
    wave = WAVELENGTH
    up, down = GIANT.copy(), GIANT.copy()
    up[f"{element}_fe"] += 0.05
    down[f"{element}_fe"] -= 0.05
    change = (synthesize(up) - synthesize(down)).values[0]
    around, near = np.abs(wave - line) < 6, np.abs(wave - line) < 1.2
    assert np.argmin(np.where(around, change, 0)) in np.flatnonzero(near)
    assert np.average(wave[near], weights=change[near]) == pytest.approx(line, abs=0.1)


@pytest.mark.parametrize("resolution", [22500, 2700])
def test_lines_have_the_width_of_the_instrument(resolution):
    labels = GIANT.assign(vmacro=0.0, vmicro=0.5, teff=4000.0)
    wave = np.arange(15950.0, 16050.0, 0.01)
    depth = 1 - synthesize(labels, wave, resolution, lines=one_line("Fe I", 5.0, -3.5)).values[0]
    above = wave[depth > depth.max() / 2]
    thermal = 2 * np.sqrt(np.log(2)) * 1.5
    expected = 16000 * np.hypot(1 / resolution, thermal / 299792.458)
    assert above[-1] - above[0] == pytest.approx(expected, rel=0.02)


# The function


def test_stars_do_not_depend_on_their_chunk_or_grid():
    rng = np.random.default_rng(1)
    labels = stars(
        *zip(
            rng.uniform(3800, 5500, 7),
            rng.uniform(0.5, 4, 7),
            rng.uniform(-1, 0.4, 7),
            np.zeros(7),
            strict=True,
        )
    )
    wave = WAVELENGTH
    whole = synthesize(labels)
    np.testing.assert_allclose(synthesize(labels, chunk=2).values, whole.values, atol=2e-6)
    part = synthesize(labels, wave[4000:4400])
    np.testing.assert_allclose(part.values[:, 5:-5], whole.values[:, 4005:4395], atol=3e-3)


def test_shape_coordinates_and_range():
    corners = [
        (t, g, f, a) for t in (3500, 6500) for g in (0, 5) for f in (-2.5, 0.6) for a in (-0.2, 0.5)
    ]
    labels = stars(*corners).set_index(
        pd.Index([f"2M{i:08d}+0000000" for i in range(16)], name="apogee_id")
    )
    flux = synthesize(labels)
    assert flux.dims == ("star", "wavelength")
    assert list(flux["star"].values) == list(labels.index)
    np.testing.assert_allclose(flux["wavelength"], 10 ** (4.179 + 6e-6 * np.arange(8575)))
    assert np.isfinite(flux.values).all()
    assert flux.values.min() > 0
    assert flux.values.max() <= 1


def test_smooth_in_the_labels():
    """Third differences along a fine path of labels are small beside first ones: no steps, no
    kinks."""
    path = stars(
        *[(4500 + 10 * i, 2.0 + 0.02 * i, -0.3 + 0.02 * i, 0.1 + 0.01 * i) for i in range(12)]
    )
    flux = synthesize(path).values.astype(float)
    assert np.abs(np.diff(flux, 3, axis=0)).max() < 0.03 * np.abs(np.diff(flux, axis=0)).max()


def test_labels_are_checked():
    with pytest.raises(ValueError, match="si_fe"):
        synthesize(GIANT.drop(columns="si_fe"))
    with pytest.raises(ValueError, match="not finite"):
        synthesize(GIANT.assign(logg=np.nan))
    with pytest.raises(ValueError, match="outside the model"):
        synthesize(GIANT.assign(teff=12000.0))
    with pytest.raises(ValueError, match="increasing"):
        synthesize(GIANT, wavelength=[16000.0, 15900.0])
    with pytest.raises(ValueError, match="Xy"):
        synthesize(GIANT, lines=one_line("Xy I", 1.0, 0.0))


# The line table


def test_line_table_holds_the_known_lines_in_vacuum():
    lines = read_lines()
    assert list(lines.columns) == ["species", "wavelength", "ep", "loggf", "source"]
    air = {
        "Mg I": (15740.716, 15748.9, 15765.8),
        "Si I": (15960.063, 16060.009, 16094.787),
        "Fe I": (15207.526, 15648.510, 16165.032),
        "Al I": (16718.957,),
    }
    for species, positions in air.items():
        have = lines.loc[lines["species"] == species, "wavelength"].to_numpy()
        for position in air_to_vacuum(np.array(positions)):
            assert np.abs(have - position).min() < 0.02, (species, position)
    wanted = {
        "Ti I",
        "Mn I",
        "K I",
        "V I",
        "Cr I",
        "S I",
        "C I",
        "Na I",
        "Co I",
        "Cu I",
        "OH",
        "CO",
        "CN",
        "H I",
    }
    assert wanted <= set(lines["species"])


def test_every_source_of_the_line_table_is_explained():
    text = (synthesis.LINE_TABLE.parent / "README.md").read_text()
    tags = read_lines()["source"].str.removesuffix("-calibrated").unique()
    assert [tag for tag in tags if f"`{tag}`" not in text] == []


@pytest.mark.parametrize("script", sorted(CALIBRATION.glob("*.py")), ids=lambda path: path.stem)
def test_scripts_of_the_calibration_find_what_they_import(script):
    assert runpy.run_path(str(script), run_name="imported")["__doc__"]


# Real giants


@pytest.fixture(scope="module")
def real(shared_data):
    trusted = np.load(shared_data / "course" / "cannon_continuum_apogee.npz")["trusted"]
    return shared_data, trusted, np.loadtxt(shared_data / "cannon-dr10" / "coefficients.txt")


def normalized(flux, trusted, error=None):
    result, start = np.empty_like(flux, dtype=float), 0
    for low, high in CHIPS:
        part = slice(start, start := start + high - low)
        use, x = trusted[part], np.linspace(-1, 1, high - low)
        weight = None if error is None else 1 / error[part][use]
        fit = np.polynomial.chebyshev.chebfit(x[use], flux[part][use], 2, w=weight)
        result[part] = flux[part] / np.polynomial.chebyshev.chebval(x, fit)
    return result


def cannon(labels, coefficients):
    x = labels[["teff", "logg", "fe_h", "mg_fe"]].to_numpy()[0] - (4500, 2, -0.3, 0.05)
    return np.r_[1, x, [x[i] * x[j] for i in range(4) for j in range(i, 4)]] @ coefficients


def simulated(labels, trusted):
    return normalized(synthesize(labels).values[0, PIXELS], trusted)


def slope(spectrum, labels, columns, step):
    up, down = labels.copy(), labels.copy()
    up[columns] += step
    down[columns] -= step
    return (spectrum(up) - spectrum(down)) / (2 * step)


def test_resembles_the_real_mystery_star(real):
    shared, trusted, _ = real
    with fits.open(shared / "course" / "mystery_spec_wiped.fits") as hdus:
        flux, error, mask = (hdus[i].data[PIXELS].astype(float) for i in (1, 2, 3))
    bad = sum(1 << bit for bit in (*range(8), 12))
    good = np.isfinite(flux) & (flux != 0) & (error > 0) & (mask.astype(int) & bad == 0)
    star = normalized(np.where(good, flux, 0.0), trusted & good, np.where(good, error, 1.0))
    model = simulated(GIANT, trusted)
    assert np.corrcoef(star[good], model[good])[0, 1] > 0.95


@pytest.mark.parametrize(
    "labels", [(4467, 2.03, -0.51, 0.23), (4500, 2, -0.3, 0.05), (4750, 2.5, -0.1, 0.07)]
)
def test_responds_to_labels_as_real_giants_do(real, labels):
    _, trusted, coefficients = real
    star = stars(labels)
    for columns, step, least in (
        (["teff"], 50.0, 0.82),
        (["logg"], 0.1, 0.55),
        (["fe_h"], 0.05, 0.9),
        (["mg_fe", "si_fe"], 0.05, 0.5),
    ):
        ours = slope(lambda x: simulated(x, trusted), star, columns, step)
        theirs = slope(lambda x: cannon(x, coefficients), star, columns, step)
        assert np.corrcoef(ours, theirs)[0, 1] > least, columns
        assert 0.6 < ours.std() / theirs.std() < 1.6, columns
