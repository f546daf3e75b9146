"""MIST files, the table that ships, and the giant branch: a real file, and files made here."""

import numpy as np
import pytest

from apogee_archive.errors import CorruptFileError
from labtools.isochrones import (
    best_isochrone,
    giant_branch,
    isochrone,
    read_mist,
    shipped_isochrones,
)

EEPS = np.arange(400, 640)
RULE = "# " + "-" * 86


def made_up(eep, log_age, feh):
    """log Teff and log g, linear in log age and [Fe/H], of a made-up isochrone with a bump at EEP 540."""
    up = eep - 454
    logg = 4.0 - 0.024 * up + 0.2 * np.exp(-(((eep - 540) / 4) ** 2)) - 0.1 * (log_age - 9.8)
    return 3.76 - 0.0014 * up - 0.03 * feh - 0.02 * (log_age - 9.8), logg


def mist_text(log_ages, feh, linear=False, cmd=True, phases=True):
    """A file in the format of MIST: `.iso.cmd`, or `.iso` without [Fe/H] columns; some have no phases."""
    name = "isochrone_age_yr" if linear else "log10_isochrone_age_yr"
    lines = ["# MIST version number  = 1.2", "# MESA revision number =     7503", RULE]
    lines += ["#  Yinit        Zinit   [Fe/H]   [a/Fe]  v/vcrit"]
    lines += [f"# 0.2500  6.64289E-04    {feh:5.2f}     0.00     0.40", RULE]
    lines += [f"# number of isochrones =  {len(log_ages):4d}", RULE]
    for log_age in log_ages:
        columns = ["EEP", name, "initial_mass", "log_Teff", "log_g"] + [
            "[Fe/H]_init",
            "[Fe/H]",
        ] * cmd
        lines += [f"# number of EEPs, cols =  {len(EEPS)}  {len(columns) + 1}", "#  1   2   3", ""]
        lines[-1] = "# " + "  ".join(columns + ["phase"] * phases)
        for eep in EEPS:
            log_teff, logg = made_up(eep, log_age, feh)
            numbers = [
                10**log_age if linear else log_age,
                1.1,
                log_teff,
                logg,
                *([feh, feh] if cmd else []),
            ]
            phase = 0 if eep < 454 else 2 if eep < 605 else 3
            lines.append(
                f"{eep:5d} " + " ".join(f"{number:.16E}" for number in numbers + [phase] * phases)
            )
        lines += ["", ""]
    return "\n".join(lines)


@pytest.fixture
def grid(tmp_path):
    """Three ages at each of two metallicities, one file after the other in one."""
    path = tmp_path / "grid.iso.cmd"
    path.write_text("".join(mist_text([9.7, 9.75, 9.9], feh) for feh in (-1.0, 0.0)))
    return path


def test_the_real_file(shared_data):
    table = read_mist(shared_data / "mist" / "MIST_iso_12Gyr_feh-1.35.iso.cmd")
    assert len(table) == 1460
    assert {"eep", "age", "initial_mass", "log_teff", "log_g", "log_l", "ps_g", "phase"} <= set(
        table.columns
    )
    np.testing.assert_allclose(table["age"], 12, rtol=1e-12)
    np.testing.assert_allclose(table["feh_init"], -1.35)
    assert table.attrs["source"] == "MIST v1.2, v/vcrit = 0.40"
    clump = table[table["phase"] == 3]
    assert clump["log_g"].median() == pytest.approx(2.4, abs=0.2)
    logg = np.arange(0.5, 3.6, 0.1)
    teff = giant_branch(isochrone(table, 12, -1.35), logg)
    assert (np.diff(teff) > 0).all()
    row = table[table["eep"] == 534].iloc[0]
    assert giant_branch(table, row["log_g"]) == pytest.approx(row["teff"], abs=0.01)


@pytest.mark.parametrize("cmd", [True, False])
@pytest.mark.parametrize("linear", [True, False])
def test_reading_both_formats_and_both_age_scales(cmd, linear, tmp_path):
    path = tmp_path / "a.iso"
    path.write_text(mist_text([9.0, 9.8], -0.5, linear=linear, cmd=cmd))
    table = read_mist(path)
    assert len(table) == 2 * len(EEPS)
    np.testing.assert_allclose(
        np.unique(table["age"].round(9)), 10 ** np.array([0.0, 0.8]), rtol=1e-8
    )
    np.testing.assert_allclose(table["feh_init"], -0.5)
    np.testing.assert_allclose(table["teff"], 10 ** table["log_teff"])
    assert ("feh" in table) == cmd


def test_an_age_between_grid_points_is_interpolated_and_not_rounded(grid):
    table = read_mist(grid)
    for age, feh in ((6.0, 0.0), (6.0, -0.3), (10**0.75, -1.0), (10**0.9, 0.0)):
        one = isochrone(table, age, feh)
        log_teff, logg = made_up(one["eep"], 9 + np.log10(age), feh)
        np.testing.assert_allclose(one["log_teff"], log_teff, rtol=1e-5)
        np.testing.assert_allclose(one["log_g"], logg, rtol=1e-5)
        np.testing.assert_allclose(one["teff"], 10**log_teff, rtol=1e-5)
        phase = np.select([one["eep"] < 454, one["eep"] < 605], [0, 2], 3)
        np.testing.assert_array_equal(one["phase"], phase)
        assert one["age"].unique() == pytest.approx(age)
    assert isochrone(table, 6, 0).attrs["source"].startswith("MIST v1.2")


@pytest.mark.parametrize(
    ("age", "feh"), [(4.0, 0.0), (8.5, 0.0), (6.0, 0.1), (0.0, 0.0), (np.nan, 0.0)]
)
def test_beyond_the_grid_is_an_error(age, feh, grid):
    with pytest.raises(ValueError, match="no isochrone for"):
        isochrone(read_mist(grid), age, feh)


def test_giant_branch_is_monotonic_across_the_bump(grid):
    one = isochrone(read_mist(grid), 6.0, 0.0)
    rgb = one[one["phase"] == 2]
    assert (np.diff(rgb["log_g"]) > 0).any()
    logg = np.linspace(rgb["log_g"].min(), rgb["log_g"].max(), 500)
    teff = giant_branch(one, logg)
    assert (np.diff(teff) > 0).all()
    ends = rgb.iloc[[-1, 0]]
    np.testing.assert_allclose(teff[[0, -1]], ends["teff"], rtol=1e-12)
    assert np.isnan(
        giant_branch(one, [ends["log_g"].iloc[0] - 0.01, ends["log_g"].iloc[1] + 0.01])
    ).all()
    bare = grid.parent / "bare.iso.cmd"
    bare.write_text("".join(mist_text([9.7, 9.75, 9.9], feh, phases=False) for feh in (-1.0, 0.0)))
    np.testing.assert_allclose(giant_branch(isochrone(read_mist(bare), 6.0, 0.0), logg), teff)


def test_giant_branch_wants_one_isochrone_with_giants(grid):
    table = read_mist(grid)
    with pytest.raises(ValueError, match="several isochrones"):
        giant_branch(table, 2.0)
    one = isochrone(table, 6, 0)
    with pytest.raises(ValueError, match="no red giant branch"):
        giant_branch(one[one["phase"] == 0], 2.0)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "<!DOCTYPE html><title>404 Not Found</title>", "not a MIST isochrone file"),
        (lambda text: "", "not a MIST isochrone file"),
        (lambda text: text[: len(text) // 3], "cut off"),
        (lambda text: text[:-60], "cut off|missing or not finite"),
        (lambda text: text.replace("log_g", "log_x"), "log_g is missing"),
        (lambda text: text.replace("3.7", "*.*", 1), "rows of 8 numbers"),
        (lambda text: text.replace("3.7", "NaN ", 1), "rows of|cut off|not finite"),
        (lambda text: text.replace("E+00", "E+02"), "no star has"),
        (lambda text: text + text, "twice"),
        (lambda text: text + mist_text([9.0], 0.0, cmd=False), "of the same columns"),
    ],
)
def test_a_damaged_file_is_refused_with_its_name(damage, message, tmp_path):
    path = tmp_path / "bad.iso.cmd"
    path.write_text(damage(mist_text([9.7, 9.9], 0.0)))
    with pytest.raises(CorruptFileError, match=message) as caught:
        read_mist(path)
    assert "bad.iso.cmd" in str(caught.value)


def test_the_table_that_ships_is_of_the_kind_that_the_reader_gives(grid):
    shipped, read = shipped_isochrones(), read_mist(grid)
    for name in ("eep", "age", "feh_init", "initial_mass", "log_teff", "log_g", "phase", "teff"):
        assert {shipped[name].dtype.kind, read[name].dtype.kind} <= set("if"), name
    assert shipped.attrs["source"].startswith("MIST v2.5")
    assert np.isfinite(shipped.to_numpy()).all()
    grid = shipped.groupby("feh_init").age.unique().map(list)
    assert {-1.0, -0.5, 0.0, 0.25} <= set(grid.index)
    assert all({3.0, 6.0, 12.0} <= set(ages) for ages in grid)
    assert set(shipped.phase) == {0, 2, 3, 4}


def test_the_giant_branches_that_ship_are_ordered():
    """Hotter with gravity, cooler with metals and with age, as the theory of the Hayashi line has it."""
    logg = np.linspace(0.6, 3.3, 100)
    fehs, ages = (-1.0, -0.75, -0.5, 0.0, 0.25, 0.4), (2.0, 4.0, 6.0, 12.0)
    by_metals = np.array([giant_branch(best_isochrone(6, feh), logg) for feh in fehs])
    assert (np.diff(by_metals, axis=1) > 0).all()
    assert (np.diff(by_metals, axis=0) < 0).all()
    by_age = np.array([giant_branch(best_isochrone(age, 0.0), logg) for age in ages])
    assert (np.diff(by_age, axis=0) < 0).all()


@pytest.mark.parametrize("feh", [0.0, -0.5])
def test_clump_bump_and_tip_are_where_theory_has_them(feh):
    """Clump at log g 2.3 to 2.5, hotter than the branch; the bump of the branch up to 0.6 dex below; a tip near 0."""
    one = best_isochrone(6.0, feh)
    clump = one[(one.phase == 3) & (one.eep > 631)]
    assert 2.3 < clump.log_g.median() < 2.5
    assert 40 < (clump.teff - giant_branch(one, clump.log_g)).median() < 250
    g = one.log_g[one.phase == 2].to_numpy()
    bump = g[:-1][np.diff(g) > 0]
    assert clump.log_g.median() < bump.max() < clump.log_g.median() + 0.6
    assert -0.1 < g.min() < 0.5


def test_the_table_that_ships_agrees_with_the_real_file(shared_data):
    """Version 2.5 against 1.2 at 12 Gyr, [Fe/H] = -1.35: 78 K hotter at the tip, 47 K cooler at the foot."""
    real = isochrone(read_mist(shared_data / "mist" / "MIST_iso_12Gyr_feh-1.35.iso.cmd"), 12, -1.35)
    ours = best_isochrone(12, -1.35, shared_data / "nothing")
    logg = np.linspace(0.7, 3.3, 50)
    difference = giant_branch(ours, logg) - giant_branch(real, logg)
    assert np.abs(difference).max() < 90
    assert abs(difference.mean()) < 40
    mass = [one.initial_mass[one.phase == 2].median() for one in (real, ours)]
    assert mass[0] == pytest.approx(mass[1], rel=0.03)


def test_a_mist_file_of_ones_own_is_preferred(grid):
    assert best_isochrone(6, 0, grid.parent).attrs["source"].startswith("MIST v1.2")
    assert best_isochrone(6, 0.3, grid.parent).attrs["source"].startswith("MIST v2.5")
    assert best_isochrone(6, 0, grid.parent / "empty").attrs["source"].startswith("MIST v2.5")
    with pytest.raises(ValueError, match="no isochrone for"):
        best_isochrone(20, 0, grid.parent / "empty")
    (grid.parent / "zzz.iso").write_text("<html>")
    with pytest.raises(CorruptFileError, match=r"zzz\.iso"):
        best_isochrone(6, 0.3, grid.parent)


def test_alpha_enhanced_files_are_named_and_not_taken_for_solar_ones(tmp_path):
    enhanced = mist_text([9.7, 9.9], 0.0).replace(" 0.00     0.40", " 0.40     0.40")
    (tmp_path / "enhanced.iso.cmd").write_text(enhanced)
    with pytest.warns(UserWarning, match="alpha_fe=0.0 gives scaled-solar models"):
        one = best_isochrone(6, 0, tmp_path)
    assert "[a/Fe] = +0.40" in one.attrs["source"]
    assert best_isochrone(6, 0, tmp_path, alpha_fe=0.4).attrs["alpha_fe"] == 0.4
    assert best_isochrone(6, 0, tmp_path, alpha_fe=0.0).attrs["source"].startswith("MIST v2.5, v")
    with pytest.raises(ValueError, match=r"\[α/Fe\] = \+0.2"):
        best_isochrone(6, 0, tmp_path, alpha_fe=0.2)
    (tmp_path / "solar.iso.cmd").write_text(mist_text([9.7, 9.9], 0.0))
    assert best_isochrone(6, 0, tmp_path).attrs["source"].startswith("MIST v1.2, v")
    (tmp_path / "both.iso.cmd").write_text(enhanced + mist_text([9.7, 9.9], -1.0))
    with pytest.raises(CorruptFileError, match="mixes"):
        read_mist(tmp_path / "both.iso.cmd")
