"""Cuts, counts, the split by star, and the gravity of a star."""

import numpy as np
import pandas as pd
import pytest

from labtools.selection import (
    LABELS,
    bias_and_scatter,
    count_cuts,
    log_g,
    removed_by,
    select_giants,
    split_by_star,
)

GOOD = {
    "teff": 4700.0,
    "logg": 2.5,
    "fe_h": -0.1,
    "mg_fe": 0.1,
    "si_fe": 0.05,
    "snr": 120.0,
    "extratarg": 0,
}


def catalog(**rows):
    return (
        pd.DataFrame({name: GOOD | changes for name, changes in rows.items()})
        .T.rename_axis("apogee_id")
        .infer_objects()
    )


@pytest.mark.parametrize(
    "change",
    [{label: np.nan} for label in LABELS]
    + [
        {"mg_fe": -9999.0},
        {"snr": 49.9},
        {"logg": 4.01},
        {"teff": 5701.0},
        {"fe_h": -1.01},
        {"extratarg": 17},
    ],
)
def test_what_the_cuts_remove(change):
    kept = select_giants(catalog(good=GOOD, bad=change))
    assert list(kept.index) == ["good"]


def test_limits_themselves_are_kept():
    edge = {"snr": 50.0, "logg": 4.0, "teff": 5700.0, "fe_h": -1.0, "extratarg": 1}
    assert len(select_giants(catalog(edge=edge))) == 1


def test_a_star_counts_once_at_its_best_entry_that_passes():
    table = pd.concat(
        [
            catalog(star={"snr": snr, "logg": logg})
            for snr, logg in ((80, 2.5), (90, 2.5), (200, 4.5))
        ]
    )
    kept = select_giants(table)
    assert kept.snr.tolist() == [90]


def test_counts_add_up():
    table = catalog(a={}, b={"snr": 10}, c={"snr": 10, "logg": 4.5}, d={"logg": 4.5})
    counts = count_cuts(table)
    assert counts.removed.sum() == 3
    assert counts.left.iloc[-1] == len(select_giants(table)) == 1
    assert counts.loc["log g ≤ 4"].tolist() == [1, 1, 2]
    assert removed_by(table).to_dict() == {
        "a": "",
        "b": "SNR ≥ 50",
        "c": "SNR ≥ 50",
        "d": "log g ≤ 4",
    }


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (catalog(a={}).iloc[:0], "empty"),
        (catalog(a={}).drop(columns="snr"), "snr"),
        (catalog(a={"snr": 1.0}), "none of the 1 rows"),
    ],
)
def test_nothing_to_select_is_an_error(table, message):
    with pytest.raises(ValueError, match=message):
        select_giants(table)


def test_log_g_of_the_sun_and_of_giants():
    assert log_g(1, 1) == pytest.approx(4.438, abs=0.001)  # Prsa et al. 2016, IAU nominal values
    np.testing.assert_allclose(log_g(1, [100, 15]), [0.438, 2.086], atol=0.001)


def test_the_split_is_by_star_and_repeatable():
    stars = [f"s{number % 70}" for number in range(100)]
    first, second = split_by_star(stars, seed=3)
    assert not set(first) & set(second)
    assert len(set(first)) == 35
    assert len(first) + len(second) == 100
    assert split_by_star(stars, seed=3)[0].equals(first)
    assert not split_by_star(stars, seed=4)[0].equals(first)
    assert set(split_by_star(stars[::-1], seed=3)[0]) == set(first)


def test_any_number_of_groups_in_proportion():
    stars = [f"s{number % 80}" for number in range(100)]
    groups = split_by_star(stars, seed=42, parts=(5, 1, 2))
    assert [len(set(group)) for group in groups] == [50, 10, 20]
    assert sum(len(group) for group in groups) == 100
    halves = split_by_star(stars, seed=3, parts=(1, 1))
    assert all(
        one.equals(other) for one, other in zip(halves, split_by_star(stars, seed=3), strict=True)
    )


def test_the_split_of_the_lab_stays_what_it_was():
    """Outputs of the notebooks depend on it."""
    stars = [f"s{number:02d}" for number in range(8)]
    assert list(split_by_star(stars, 17)[0]) == ["s00", "s01", "s04", "s06"]
    assert [list(group) for group in split_by_star(stars, 42, parts=(5, 1, 2))] == [
        ["s02", "s03", "s04", "s06", "s07"],
        ["s01"],
        ["s00", "s05"],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((catalog(a={}, b={}), 1), "the stars of the table"),
        ((["a", "b"], 1, 0.0), "above 0 and below 1"),
        ((["a", "b"], 1, 1.0), "above 0 and below 1"),
        ((["a", "b"], 1, 50), "above 0 and below 1"),
        ((["a", "b"], 1, np.nan), "above 0 and below 1"),
        ((["a", "b"], 1, 0.5, (5, 0, 2)), "above 0"),
    ],
)
def test_what_cannot_be_split(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_by_star(*arguments)


def test_bias_and_scatter_of_a_known_difference_with_one_outlier():
    rng = np.random.default_rng(5)
    stars = [f"s{number}" for number in range(4001)]
    reference = pd.DataFrame(
        {"teff": rng.uniform(4000, 5000, 4001), "fe_h": rng.uniform(-1, 0, 4001)}, index=stars
    )
    fit = reference.iloc[::-1] + rng.normal([20, -0.05], [10, 0.02], (4001, 2))
    fit.loc["s7", "teff"] += 5000
    table = bias_and_scatter(fit, reference, ["teff", "fe_h"])
    assert table.loc["teff", "median"] == pytest.approx(20, abs=0.6)
    assert table.loc["teff", "1.4826 MAD"] == pytest.approx(10, rel=0.05)
    assert table.loc["teff", "std"] > 70, "the outlier moves this one"
    assert table.loc["fe_h"].to_list() == pytest.approx([-0.05, -0.05, 0.02, 0.02], rel=0.05)
    with pytest.raises(KeyError):
        bias_and_scatter(fit, reference.drop("s3"), ["teff"])


def test_apogee_id_as_a_column_names_the_star():
    """As any read_csv, reset_index or merge leaves it."""
    table = pd.concat([catalog(a={"snr": 80}), catalog(a={"snr": 90}), catalog(b={})])
    flat = table.reset_index()
    assert len(select_giants(flat)) == len(select_giants(table)) == 2
    assert select_giants(flat).snr.tolist() == select_giants(table).snr.tolist()
    assert flat.apogee_id[select_giants(flat).index].tolist() == ["a", "b"]


def test_a_catalog_that_does_not_name_its_stars_is_refused():
    with pytest.raises(ValueError, match="index it by apogee_id"):
        select_giants(catalog(a={}, b={}).reset_index(drop=True))


def test_bytes_and_padding_do_not_make_another_star():
    table = pd.concat([catalog(a={"snr": 80}), catalog(**{"a ": {"snr": 90}})])
    assert select_giants(table).snr.tolist() == [90]
    groups = split_by_star([b"a", "a ", "b", "a"], seed=0)
    assert sorted(map(list, groups)) == [["a", "a", "a"], ["b"]]


@pytest.mark.parametrize("form", [set, dict.fromkeys, np.array, tuple, lambda s: np.array(s, "S")])
def test_stars_in_any_collection(form):
    stars = [f"s{number}" for number in range(20)]
    groups = split_by_star(form(stars), seed=3)
    expected = split_by_star(stars, seed=3)
    assert [set(group) for group in groups] == [set(group) for group in expected]


def test_numbers_straight_from_a_fits_table():
    native = catalog(good={}, dwarf={"logg": 4.5}, other={"snr": 70.0})
    swapped = pd.DataFrame(
        {
            name: native[name].to_numpy().astype(native[name].dtype.newbyteorder(">"))
            for name in native
        },
        index=native.index,
    )
    assert select_giants(swapped).equals(select_giants(native))
    assert count_cuts(swapped).equals(count_cuts(native))
    assert bias_and_scatter(swapped, native).equals(bias_and_scatter(native, native))


def test_a_flag_that_is_missing_is_not_read_as_bits():
    table = catalog(a={}, b={"extratarg": np.nan})
    with pytest.raises(ValueError, match="extratarg is missing in 1 rows"):
        select_giants(table)


def test_standard_errors_are_those_of_a_normal_distribution():
    rng = np.random.default_rng(6)
    stars = [f"s{number}" for number in range(1000)]
    reference = pd.DataFrame({"teff": np.zeros(1000)}, index=stars)
    fit = pd.DataFrame({"teff": rng.normal(0, 10, 1000)}, index=stars)
    row = bias_and_scatter(fit, reference, ["teff"], resamples=400).loc["teff"]
    assert row["mean_err"] == pytest.approx(10 / 1000**0.5, rel=0.15)
    assert row["std_err"] == pytest.approx(10 / 2000**0.5, rel=0.2)
    plain = bias_and_scatter(fit, reference, ["teff"]).loc["teff"]
    assert row[plain.index].equals(plain)
