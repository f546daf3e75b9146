"""The catalog: the same table by every road, and no table out of anything else."""

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from apogee_archive import catalog, http
from apogee_archive.catalog import (
    catalog_bytes,
    catalog_of,
    parse_answer,
    query_catalog,
    query_fields,
    read_allstar,
    read_tables,
    sql_of,
    tidy,
)
from apogee_archive.columns import ERRORS, PARAMETERS
from apogee_archive.errors import ArchiveError, CorruptFileError
from sdss_server import serving
from tiny_archive import FIELDS, write_archive


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def sky(archive, monkeypatch):
    monkeypatch.setattr(http, "BACKOFF", 0.01)
    with serving(archive) as server:
        yield server


def by_id(table):
    return table.reset_index().sort_values(["apstar_id", "extratarg"], ignore_index=True)


def test_sql_and_tables_give_the_same_catalog(sky, archive):
    pd.testing.assert_frame_equal(by_id(query_catalog()), by_id(read_tables(archive)))


def test_the_catalog_is_what_the_tables_say(archive):
    table = read_tables(archive)
    stars = pd.read_csv(archive / "apogeeStar.csv").set_index("apstar_id")
    labels = pd.read_csv(archive / "aspcapStar.csv").set_index("apstar_id")
    for row in table.itertuples():
        assert row.snr == stars.snr[row.apstar_id]
        assert row.aspcapflag == labels.aspcapflag[row.apstar_id]
        truth = labels.teff[row.apstar_id]
        assert row.teff == truth or (np.isnan(row.teff) and truth == -9999)
    assert table.aspcapflag.max() > 2**40, "ASPCAPFLAG needs 64 bits"
    assert table[["teff", "mg_fe"]].isna().sum().to_list() == [1, 1]
    assert all(table[name].dtype == np.int64 for name in catalog.FLAGS)


def test_allstar_and_sql_give_the_same_catalog(sky, archive, tmp_path):
    table = read_tables(archive).reset_index()
    other = table.iloc[:3].assign(field="elsewhere")
    path = write_allstar(
        tmp_path / "allStar-dr17-synspec_rev1.fits", pd.concat([table, other], ignore_index=True)
    )
    pd.testing.assert_frame_equal(by_id(read_allstar(path)), by_id(query_catalog()), rtol=1e-6)
    assert len(read_allstar(path, fields=None)) == len(table) + 3


def write_allstar(path, table):
    """A FITS table as the archive writes it: upper case, float32, padded strings, NaN, columns of vectors."""
    columns = {name.upper(): table[name].to_numpy() for name in table}
    for name in (*PARAMETERS, *ERRORS, "snr", "vhelio_avg"):
        columns[name.upper()] = columns[name.upper()].astype("f4")
    columns["FIELD"] = np.array([f"{name:<19}" for name in table.field], "S19")
    columns["PARAM"] = np.zeros((len(table), 9), "f4")
    columns["X_H"] = np.full((len(table), 26), np.nan, "f4")
    columns["NVISITS"] = columns["NVISITS"].astype("i4")[:, None]
    for name in catalog.TEXT:
        columns[name.upper()] = columns[name.upper()].astype("S")
    Table(columns).write(path)
    return path


@pytest.mark.parametrize("fault", ["503", "html", "500", "drop", "cut", "nothing"])
def test_a_fault_that_passes_is_survived(sky, archive, fault):
    sky.fault = lambda path, number: fault if number in (1, 4) else None
    assert len(query_catalog()) == len(read_tables(archive))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("503", "gave no catalog"),
        ("html", "gave no catalog"),
        ("nothing", "gave no catalog"),
        ("drop", "gave no catalog"),
        ("fewer rows", "counts .* but sent"),
        ("no rows", "gave no count"),
    ],
)
def test_a_fault_that_stays_is_a_clear_error(sky, fault, says):
    sky.fault = lambda path, number: fault if number % 2 or fault != "fewer rows" else None
    with pytest.raises(ArchiveError, match=says) as caught:
        query_catalog()
    assert "<" not in str(caught.value), "no HTML in a message for people"
    assert len(str(caught.value)) < 600


def test_an_empty_result_is_a_clear_error(sky):
    with pytest.raises(ArchiveError, match="no star in NOWHERE"):
        query_catalog(["NOWHERE"])
    with pytest.warns(UserWarning, match="no star in NOWHERE"):
        assert len(query_catalog(["NOWHERE", "M15"]))


def test_an_error_in_the_database_is_a_clear_error(sky):
    sky.database.execute("DROP TABLE aspcapStar")
    with pytest.raises(ArchiveError, match="no such table"):
        query_catalog()


def test_the_server_is_asked_for_no_more_than_needed(sky):
    query_catalog()
    assert len(sky.requests) == 2 * len(FIELDS)
    assert "[file]" in sql_of("M15")
    assert "*" not in sql_of("M15")
    assert set(query_fields()) == set(FIELDS)


@pytest.mark.parametrize(
    "field", ["M15'; DROP TABLE apogeeStar --", "a'b", "", "x" * 65, "M15\x00", "Ḿ15"]
)
def test_a_field_name_cannot_change_the_query(field):
    with pytest.raises(ValueError, match="no field name"):
        sql_of(field)


def test_fillers_of_every_kind_become_nan(archive):
    table = read_tables(archive).reset_index().iloc[:6]
    for fillers in ([-9999, -9999.99, np.inf, np.nan, -1e30], [-999, -999.9, -1000, -9000, -9999]):
        table["teff"] = [4000, *fillers]
        assert tidy(table, "test").teff.notna().to_list() == [True] + [False] * 5


@pytest.mark.parametrize("column", ["STARFLAG", "ASPCAPFLAG", "EXTRATARG", "NVISITS"])
def test_masked_whole_numbers_are_not_read_as_bits(archive, tmp_path, column):
    """An allStar file that astropy read, masked and saved: a TNULL stands in the place of a flag."""
    path = write_allstar(tmp_path / "a.fits", read_tables(archive).reset_index())
    table = Table.read(path)
    table[column] = np.ma.masked_array(np.ravel(table[column]), np.arange(len(table)) == 3)
    table.write(tmp_path / "again.fits")
    with pytest.raises(CorruptFileError, match=f"{column.lower()} .*1 of 14 are missing or masked"):
        read_allstar(tmp_path / "again.fits")
    unmasked = Table.read(path)
    unmasked[column] = np.ma.masked_array(np.ravel(unmasked[column]), False)
    unmasked.write(tmp_path / "whole.fits")
    pd.testing.assert_frame_equal(read_allstar(tmp_path / "whole.fits"), read_allstar(path))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table.drop(columns="teff"), "no column teff"),
        (lambda table: table.assign(teff="hot"), "column teff holds something else"),
        (lambda table: table.assign(starflag=np.nan), "column starflag"),
        (lambda table: table.assign(aspcapflag=0.5), "column aspcapflag"),
        (lambda table: table.rename(columns={"ra": "Dec"}), "no column ra|two columns"),
    ],
)
def test_a_wrong_table_is_refused(archive, change, says):
    with pytest.raises(CorruptFileError, match=says):
        tidy(change(read_tables(archive).reset_index()), "test")


def test_a_kept_catalog_comes_back_exactly(archive):
    table = read_tables(archive)
    table.attrs.update(source="here", query="SELECT")
    again = catalog_of(catalog_bytes(table))
    pd.testing.assert_frame_equal(table, again)
    assert again.attrs == table.attrs


ANSWER = b"#Table1\nfield,stars\nM15,12\n060+00,7\n"


def test_an_answer_is_text_in_columns():
    table = parse_answer(("field", "stars"), ANSWER)
    assert table.to_numpy().tolist() == [["M15", "12"], ["060+00", "7"]], (
        "nothing is taken for a number"
    )
    assert parse_answer(("field", "stars"), ANSWER.replace(b"\n", b"\r\n")).equals(table)
    assert len(parse_answer(("field", "stars"), b"#Table1\nfield,stars\n")) == 0


@pytest.mark.parametrize("cut", range(1, len(ANSWER)))
def test_an_answer_that_is_cut_is_noticed_wherever_it_is_cut(cut):
    """A cut at the end of a line is noticed by the count that is asked for."""
    try:
        rows = len(parse_answer(("field", "stars"), ANSWER[:cut]))
    except ValueError:
        return
    assert ANSWER[:cut].endswith(b"\n")
    assert rows < 2


NO_TABLE = [
    b"",
    b"\n",
    b"/etc/passwd",
    b"http://127.0.0.1/x.csv",
    b"\xff\xfe",
    b"<html>",
    b"field,stars",
]


@pytest.mark.parametrize("body", [*NO_TABLE, b'field,stars\n"M15,1\n'])
def test_an_answer_is_never_an_address(body):
    with pytest.raises(ValueError, match="not the table that was asked for"):
        parse_answer(("field", "stars"), body)


@pytest.mark.parametrize(
    "content", [b"", b"<html>Sorry</html>", b"SIMPLE  =                    T" + b" " * 2850]
)
def test_something_else_than_allstar_is_refused(tmp_path, content):
    path = tmp_path / "allStar-dr17-synspec_rev1.fits"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match="not a readable allStar file"):
        read_allstar(path)


def test_the_replica_gives_the_same_by_both_roads(shared_data):
    with serving(shared_data / "dr17-replica"):
        table = query_catalog()
    pd.testing.assert_frame_equal(by_id(table), by_id(read_tables(shared_data / "dr17-replica")))
    assert len(table) == 182, (
        "the join doubles the two rows of one apstar_id; rows that are the same count once"
    )
