"""The surveys: DR17 from a server that behaves like SDSS, and the simulated one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.io import fits

from apogee_archive import cache, dr17 as archive, http, survey
from apogee_archive.apstar import read_apstar
from apogee_archive.catalog import read_tables
from apogee_archive.errors import ArchiveError, CacheError
from labtools import left_out, open_survey
from labtools.spectra import WAVELENGTH
from sdss_server import bad_day, bad_start, serving
from tiny_archive import FIELDS, STARS, write_apstar, write_archive

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Short pauses, and no settings from outside."""
    monkeypatch.setattr(http, "BACKOFF", 0.01)
    for name in [name for name in os.environ if name.startswith("LAB_") and name != "LAB_SHARED"]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("mirror"), number=20)


@pytest.fixture
def sdss(mirror):
    with serving(mirror) as server:
        yield server


@pytest.fixture
def dr17(sdss, tmp_path):
    return open_survey("dr17", tmp_path / "data")


def files_of(folder):
    return {path.parts[-3:]: path.read_bytes() for path in Path(folder).rglob("*.fits")}


def assert_tidy(folder):
    """Nothing is left of what was under way."""
    assert not [
        path
        for path in folder.rglob("*")
        if path.suffix == ".part" or path.name.startswith("unfinished")
    ]


def assert_right(spectra, mirror):
    """Every spectrum is, number for number, that of its file in the archive."""
    best = read_tables(mirror).sort_values(["extratarg", "snr"], ascending=[True, False])
    best = best[~best.index.duplicated()]
    for star in spectra.star.values:
        row = best.loc[star]
        truth = read_apstar(mirror / STARS / row.telescope / row.field / row.file)
        xr.testing.assert_equal(spectra.sel(star=[star]), truth)


# ---------------------------------------------------------------- which survey


def test_the_survey_is_named_by_argument_or_environment(tmp_path, monkeypatch):
    assert open_survey(root=tmp_path).name == "simulated"
    monkeypatch.setenv("LAB_SURVEY", "dr17")
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "here"))
    chosen = open_survey()
    assert (chosen.name, chosen.title, chosen.root) == ("dr17", "APOGEE DR17", tmp_path / "here")
    assert open_survey("simulated").title == "simulated survey"
    assert repr(chosen) == f"<APOGEE DR17 in {tmp_path / 'here'}>"
    assert open_survey("DR17").name == "dr17"


def test_an_unknown_survey_is_named_with_those_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"'gaia'.*simulated.*dr17"):
        open_survey("gaia", tmp_path)


# ---------------------------------------------------------------- the catalog


def test_the_catalog_is_asked_for_once(dr17, sdss, mirror):
    first, second = dr17.catalog(), dr17.catalog()
    pd.testing.assert_frame_equal(first, second)
    assert len(first) == len(read_tables(mirror))
    assert sdss.asked("x_results") == 2 * len(FIELDS)
    assert first.attrs["source"] == "CAS synspec"
    assert {"date", "query", "fields", "rows"} <= set(first.attrs)


def test_the_raw_catalog_has_the_fillers_that_the_archive_sent(dr17, sdss, mirror):
    raw, tidied = dr17.catalog(raw=True), dr17.catalog()
    pd.testing.assert_frame_equal(
        by_name(raw), by_name(read_tables(mirror, raw=True)), check_names=False
    )
    labels = ["teff", "logg", "fe_h", "mg_fe", "si_fe"]
    assert (raw[labels] < -9000).any(axis=None)
    assert raw[labels].notna().all(axis=None)
    assert (tidied[labels].isna() == (raw[labels] < -9000)).all(axis=None)
    assert sdss.asked("x_results") == 2 * len(FIELDS), "both come from one query"


def by_name(table):
    return table.sort_values(["field", "file"])


def test_the_file_of_a_star_is_whole_and_named(dr17):
    star = dr17.catalog().index[0]
    path = dr17.path(star)
    assert star in path.name
    assert path == dr17.path(star)
    assert fits.getheader(path)["OBJID"].strip() == star


def test_a_star_of_which_only_arrays_are_kept_has_no_file(dr17):
    star = dr17.catalog().index[0]
    dr17.spectra([star], storage="arrays")
    with pytest.raises(FileNotFoundError, match="LAB_STORAGE"):
        dr17.path(star)


def test_a_damaged_catalog_is_fetched_again(dr17):
    first = dr17.catalog()
    for share in (0.001, 0.1, 0.5, 0.999):
        (kept,) = dr17.root.rglob("catalog-*.csv")
        content = bytearray(kept.read_bytes())
        content[int(share * len(content))] ^= 1
        kept.write_bytes(content)
        with pytest.warns(UserWarning, match="damaged"):
            pd.testing.assert_frame_equal(first, dr17.catalog())


def test_an_allstar_file_in_the_data_folder_is_used(dr17, sdss, mirror):
    from test_catalog import write_allstar

    dr17.root.mkdir()
    write_allstar(
        dr17.root / "allStarLite-dr17-synspec_rev1.fits", read_tables(mirror).reset_index()
    )
    table = dr17.catalog()
    assert table.attrs["source"] == "SAS synspec_rev1"
    assert sdss.requests == []
    pd.testing.assert_frame_equal(table, dr17.catalog())


@pytest.mark.parametrize(
    ("named", "expected"), [("M15, N6791", {"M15", "N6791"}), ("all", set(FIELDS))]
)
def test_other_fields(dr17, monkeypatch, named, expected):
    monkeypatch.setenv("LAB_FIELDS", named)
    assert set(dr17.catalog().field) == expected


def test_a_catalog_of_another_server_is_told(dr17, mirror):
    dr17.catalog()
    with serving(mirror) as other, pytest.warns(UserWarning, match="came from"):
        dr17.catalog()
    assert other.requests == []


def test_no_catalog_is_kept_of_a_server_that_is_down(dr17, sdss):
    sdss.fault = lambda path, number: "html"
    with pytest.raises(ArchiveError, match="gave no catalog"):
        dr17.catalog()
    assert not list(dr17.root.rglob("catalog*"))


# ---------------------------------------------------------------- spectra


def test_spectra_are_those_of_the_files_in_the_order_asked_for(dr17, sdss, mirror, capsys):
    ids = dr17.catalog().index.unique()[::-1]
    spectra = dr17.spectra(ids)
    assert spectra.star.values.tolist() == ids.tolist()
    assert_right(spectra, mirror)
    assert "20/20" in capsys.readouterr().err, "a progress bar ran"
    assert {name: str(spectra[name].dtype) for name in spectra} == {
        "flux": "float32",
        "error": "float32",
        "mask": "int32",
    }
    np.testing.assert_array_equal(spectra.wavelength, WAVELENGTH)
    asked = len(sdss.requests)
    xr.testing.assert_identical(dr17.spectra(ids), spectra)
    assert len(sdss.requests) == asked, "the second time nothing is fetched"
    assert sdss.busiest <= 4


def test_rows_of_the_catalog_name_the_files_themselves(dr17, sdss, mirror):
    rows = read_tables(mirror).iloc[[4, 7]]
    assert dr17.spectra(rows).star.values.tolist() == rows.index.tolist()
    assert sdss.asked("x_results") == 0, "no catalog was needed"
    assert dr17.spectra(rows[["teff"]]).sizes["star"] == 2, "labels alone do for their index"


def test_duplicates_are_read_once_and_the_best_row_counts(dr17, sdss):
    table = dr17.catalog()
    first, second = table.index[table.index.duplicated()].unique()
    spectra = dr17.spectra([first, second, first])
    assert spectra.star.values.tolist() == [first, second]
    places = [path for path, _ in sdss.requests if path.endswith(".fits")]
    assert len(places) == 2
    assert not any("/060+00/" in path for path in places), "neither the flagged nor the fainter row"


@pytest.mark.parametrize("ids", [[], pd.Index([]), pd.DataFrame()])
def test_no_ids_are_an_error(dr17, ids):
    with pytest.raises(ValueError, match="ids is empty"):
        dr17.spectra(ids)


def test_an_unknown_star_is_named(dr17):
    with pytest.raises(KeyError, match="2M77777777"):
        dr17.spectra([dr17.catalog().index[0], "2M77777777+7777777"])


def test_what_is_missing_is_left_out_and_told(dr17, sdss):
    ids = dr17.catalog().index.unique()
    absent, damaged, other = ids[[3, 5, 7]]
    faults = {absent: "404", damaged: "truncated", other: "other"}
    sdss.fault = lambda path, number: next(
        (fault for star, fault in faults.items() if star in path), None
    )
    with pytest.warns(UserWarning, match="3 of 20 spectra are left out") as caught:
        spectra = dr17.spectra(ids)
    assert spectra.star.values.tolist() == [star for star in ids if star not in faults]
    table = left_out(spectra).set_index("star").reason
    assert "404" in table[absent]
    assert "another star" in table[other]
    assert "<" not in table[damaged]
    assert set(table.index) == set(faults)
    told = next(str(one.message) for one in caught if "left out" in str(one.message))
    assert all(star in told for star in faults)
    assert json.loads(spectra.attrs["missing"]), "plain text, so that the Dataset can be written"


def test_too_much_missing_stops(dr17, sdss):
    ids = dr17.catalog().index.unique()
    sdss.fault = lambda path, number: "404" if any(star in path for star in ids[:11]) else None
    with pytest.raises(ArchiveError, match="only 9 of 20"):
        dr17.spectra(ids)


def test_an_outage_stops_and_the_next_call_goes_on(dr17, sdss, mirror):
    ids = dr17.catalog().index.unique()
    served = []

    def fault(path, number):
        if path.endswith(".fits"):
            served.append(path)
        return "503" if len(served) > 6 else None

    sdss.fault = fault
    with pytest.raises(ArchiveError, match="run this again"):
        dr17.spectra(ids)
    assert len(files_of(dr17.root)) == 6
    assert_tidy(dr17.root)
    sdss.fault = lambda path, number: None
    sdss.requests.clear()
    assert_right(dr17.spectra(ids), mirror)
    assert sum(path.endswith(".fits") for path, _ in sdss.requests) == 14


def test_an_interruption_leaves_whole_files_and_the_next_call_goes_on(
    dr17, sdss, mirror, monkeypatch
):
    class Interrupted(survey.tqdm):
        def update(self, n=1):
            super().update(n)
            if self.n == 5:
                raise KeyboardInterrupt

    ids = dr17.catalog().index.unique()
    with monkeypatch.context() as patch:
        patch.setattr(survey, "tqdm", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            dr17.spectra(ids)
    kept = files_of(dr17.root)
    assert 5 <= len(kept) < 20
    assert kept.items() <= files_of(mirror).items()
    assert_tidy(dr17.root)
    assert_right(dr17.spectra(ids), mirror)


@pytest.mark.parametrize("sums", [True, False], ids=["with checksums", "without"])
@pytest.mark.parametrize("keep", ["files", "arrays"])
def test_a_bad_day_costs_nothing(dr17, sdss, mirror, sums, keep):
    ids = dr17.catalog().index.unique()
    sdss.fault, sdss.sums = bad_day(seed=5), sums
    spectra = dr17.spectra(ids, storage=keep)
    assert spectra.star.values.tolist() == ids.tolist()
    assert_right(spectra, mirror)
    fits = files_of(dr17.root)
    assert fits.items() <= files_of(mirror).items(), "byte for byte"
    assert len(fits) == (20 if keep == "files" else 0)
    assert_tidy(dr17.root)


def test_a_file_that_the_list_of_checksums_disowns_is_left_out(dr17, mirror, tmp_path):
    copy = shutil.copytree(mirror, tmp_path / "copy")
    ids = dr17.catalog().index.unique()[:8]
    with serving(copy) as server:
        server.fault = lambda path, number: swap(path)
        (target,) = copy.rglob(f"*{ids[3]}.fits")

        def swap(path):
            if path.endswith(target.name):
                write_apstar(target, ids[3], seed=99)

        for kept in dr17.root.rglob("catalog-*"):
            kept.unlink()
        with pytest.warns(UserWarning, match="its sha1 is not that"):
            assert dr17.spectra(ids).sizes["star"] == 7


def test_a_damaged_file_in_the_cache_is_fetched_again(dr17, mirror):
    ids = dr17.catalog().index.unique()[:6]
    dr17.spectra(ids)
    first, second, *_ = sorted(dr17.root.rglob("*.fits"))
    first.write_bytes(first.read_bytes()[:50_000])
    second.write_bytes(b"<html>")
    assert_right(dr17.spectra(ids), mirror)
    assert files_of(dr17.root).items() <= files_of(mirror).items()


def test_flipped_bits_in_the_cache_are_noticed_and_mended(dr17, sdss, mirror):
    """Even where the archive has no list of checksums: what arrived is remembered."""
    ids = dr17.catalog().index.unique()[:6]
    sdss.sums = False
    with pytest.warns(UserWarning, match="no list of checksums for field .*not verified"):
        dr17.spectra(ids)
    for number, path in enumerate(sorted(dr17.root.rglob("*.fits"))):
        content = bytearray(path.read_bytes())
        content[9000 + 5000 * number] ^= 1 << number
        path.write_bytes(content)
    with pytest.warns(UserWarning, match="no list of checksums"):
        assert_right(dr17.spectra(ids), mirror)
    assert files_of(dr17.root).items() <= files_of(mirror).items()


def test_a_fingerprint_follows_the_bytes(dr17, sdss, mirror):
    ids = dr17.catalog().index.unique()[:6]
    first = dr17.fingerprint(ids)
    assert len(files_of(dr17.root)) == 6, "what is made of the files needs them"
    assert dr17.fingerprint(ids) == first != dr17.fingerprint(ids[:5])
    path = next(dr17.root.rglob("*.fits"))
    os.utime(path, (0, 0))
    assert dr17.fingerprint(ids) == first, "under a checksum the date is nothing"
    for one in dr17.root.rglob("*.sha1sum"):
        one.unlink()
    assert dr17.fingerprint(ids) != first
    before = dr17.fingerprint(ids)
    path.write_bytes(path.read_bytes())
    assert dr17.fingerprint(ids) == before, "without one it is the bytes"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert dr17.fingerprint(ids) != before


def test_a_fingerprint_of_arrays_is_that_of_their_bytes(dr17, monkeypatch, tmp_path):
    """A copied folder has new times of change, and is the same."""
    monkeypatch.setenv("LAB_STORAGE", "arrays")
    ids = dr17.catalog().index.unique()[:4]
    first = dr17.fingerprint(ids)
    shutil.copytree(dr17.root, tmp_path / "copy", copy_function=shutil.copyfile)
    assert open_survey("dr17", tmp_path / "copy").fingerprint(ids) == first


def test_a_download_is_parsed_once(dr17, monkeypatch):
    parsed, parse = [], archive.files.parse_apstar

    def count(content, source, bits):
        parsed.append(source)
        return parse(content, source, bits)

    ids = dr17.catalog().index.unique()
    monkeypatch.setattr(archive.files, "parse_apstar", count)
    dr17.spectra(ids)
    assert len(parsed) == 20


def test_a_star_that_the_archive_does_not_have_is_asked_for_once(dr17, sdss, mirror, tmp_path):
    """The list of checksums does not name it either: that is remembered, for a month."""
    copy = shutil.copytree(mirror, tmp_path / "copy")
    ids = dr17.catalog().index.unique()
    (gone,) = copy.rglob(f"*{ids[3]}.fits")
    gone.unlink()
    with serving(copy) as server:
        for asked in (1, 1, 1):
            with pytest.warns(UserWarning, match="1 of 20 spectra are left out"):
                spectra = dr17.spectra(ids)
            assert server.asked(ids[3]) == asked
    with (
        archive.conf.set_temp("sas_baseurl", f"{server.url}/sas"),  # it is gone
        pytest.warns(UserWarning, match=r"404.*delete absent\.json"),
    ):
        dr17.spectra(ids)
    assert left_out(spectra).star.to_list() == [ids[3]]
    (dr17.home / "absent.json").write_text('{"http://x": 3')  # damaged: asked for again
    assert dr17.spectra(ids).sizes["star"] == 20


def test_a_404_without_a_list_of_checksums_is_not_remembered(dr17, sdss):
    ids = dr17.catalog().index.unique()[:6]
    sdss.sums, sdss.fault = False, lambda path, number: "404" if ids[3] in path else None
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 of 6 spectra are left out"):
            dr17.spectra(ids)
    assert sdss.asked(ids[3]) == 2


def test_a_404_of_a_file_that_the_list_names_is_not_remembered(dr17, sdss):
    """What says so may be a proxy: the archive itself says that it has the file."""
    ids = dr17.catalog().index.unique()[:6]
    sdss.fault = lambda path, number: "404" if f"{ids[3]}.fits" in path else None
    for _ in range(2):
        with pytest.warns(UserWarning, match="1 of 6 spectra are left out"):
            dr17.spectra(ids)
    assert sdss.asked(ids[3]) == 2
    sdss.fault = lambda path, number: None
    assert dr17.spectra(ids).sizes["star"] == 6


def test_what_fetch_could_not_bring_is_not_asked_for_again(dr17, sdss):
    ids = dr17.catalog().index.unique()[:6]
    sdss.sums, sdss.fault = False, lambda path, number: "404" if ids[3] in path else None
    with pytest.warns(UserWarning, match="no list"):
        faults = dr17.fetch(ids)
    assert list(faults) == [ids[3]]
    first = dr17.fingerprint(ids, faults)
    with pytest.warns(UserWarning, match="404"):
        dr17.spectra(ids, faults=faults)
    assert sdss.asked(ids[3]) == 1
    sdss.fault = lambda path, number: None
    with pytest.warns(UserWarning, match="no list"):
        assert dr17.fingerprint(ids) != first, "it has come"


def test_a_file_that_cannot_be_read_is_left_out_and_named(dr17, monkeypatch):
    ids = dr17.catalog().index.unique()[:6]
    closed = dr17.path(ids[2])
    dr17.spectra(ids)
    read = Path.read_bytes

    def refuse(path):
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(archive, "gather", lambda requests: iter(()))
    with pytest.warns(
        UserWarning, match=f"1 of 6 spectra.*\n.*{ids[2].replace('+', '.')}.*Permission"
    ):
        assert dr17.spectra(ids).sizes["star"] == 5


def test_an_unreadable_list_of_checksums_is_named(dr17, sdss):
    ids = dr17.catalog().index.unique()[:6]
    dr17.spectra(ids)
    for path in dr17.home.rglob("*.sha1sum"):
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="sha1sum cannot be read.*not verified"):
        assert dr17.spectra(ids).sizes["star"] == 6
    next(dr17.home.rglob(f"*{ids[0]}.fits")).unlink()
    with pytest.warns(UserWarning, match="cannot be read"):
        dr17.spectra(ids)
    assert [path for path in dr17.home.rglob("*.sha1sum") if path.read_bytes()], "fetched again"


@pytest.mark.parametrize(
    "pack_up",
    [list, set, np.array, pd.Index, pd.Series, lambda ids: dict.fromkeys(ids).keys(),
     lambda ids: np.array(ids, "S"), lambda ids: [f" {one}  " for one in ids], iter,
     lambda ids: xr.DataArray(ids), lambda ids: pd.DataFrame({"apogee_id": ids, "teff": 1.0}),
     lambda ids: pd.DataFrame({"teff": 1.0}, index=ids)],
)  # fmt: skip
def test_names_of_stars_in_whatever_holds_them(dr17, pack_up):
    ids = dr17.catalog().index.unique()[:3].tolist()
    assert set(dr17.spectra(pack_up(ids)).star.values) == set(ids)


def test_a_table_of_ones_own_may_have_gaps(dr17, mirror):
    rows = read_tables(mirror).copy()
    rows["extratarg"] = rows.extratarg.astype(float)
    rows.iloc[[4, 21], rows.columns.get_loc("extratarg")] = np.nan
    rows["nvisits"] = rows.nvisits.astype(float)
    rows.iloc[6, rows.columns.get_loc("nvisits")] = np.nan
    rows["file"] = rows.file.astype(object)
    rows.iloc[8, rows.columns.get_loc("file")] = np.nan
    with pytest.warns(UserWarning, match="names no file"):
        spectra = dr17.spectra(rows)
    assert left_out(spectra).star.to_list() == [rows.index[8]]
    assert_right(spectra, mirror)


def test_a_portal_ends_it_with_the_truth(dr17, sdss):
    ids = dr17.catalog().index.unique()
    sdss.requests.clear()
    sdss.fault = lambda path, number: "html"
    with pytest.raises(ArchiveError, match="log in"):
        dr17.spectra(ids)
    assert len(sdss.requests) < 60


def test_names_in_a_catalog_are_never_paths(dr17, sdss, mirror, tmp_path):
    rows = read_tables(mirror).iloc[4:12].copy()
    rows.iloc[0, rows.columns.get_loc("field")] = "../../../../../../../escaped"
    rows.iloc[1, rows.columns.get_loc("file")] = "../../apStar-dr17-x.fits"
    rows.iloc[2, rows.columns.get_loc("telescope")] = "/tmp"
    with pytest.warns(UserWarning, match="refused"):
        spectra = dr17.spectra(rows)
    assert set(left_out(spectra).star) == set(rows.index[:3])
    assert not list(tmp_path.rglob("escaped*"))
    assert not any(".." in path or "escaped" in path for path, _ in sdss.requests)


def test_two_processes_share_one_cache(dr17, sdss, mirror):
    sdss.fault = bad_start
    script = (
        "import sys; from astroquery.sdss import conf; from labtools import open_survey\n"
        "from apogee_archive import http\n"
        "conf.skyserver_baseurl, conf.sas_baseurl = sys.argv[1], sys.argv[1] + '/sas'\n"
        "http.BACKOFF = 0.01\n"
        "survey = open_survey('dr17', sys.argv[2])\n"
        "print(survey.spectra(survey.catalog().index.unique()).sizes['star'])"
    )
    command = [sys.executable, "-c", script, sdss.url, str(dr17.root)]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.communicate(timeout=300)[0].strip() for process in both] == ["20", "20"]
    assert files_of(dr17.root).items() <= files_of(mirror).items()
    assert_tidy(dr17.root)


def test_a_shared_cache_is_read_and_never_written(dr17, sdss, mirror, tmp_path, monkeypatch):
    ids = dr17.catalog().index.unique()
    dr17.spectra(ids[:15])
    before = sorted(dr17.root.rglob("*"))
    monkeypatch.setenv("LAB_DATA_SHARED", str(dr17.root))
    own = open_survey("dr17", tmp_path / "own")
    sdss.requests.clear()
    assert_right(own.spectra(ids), mirror)
    assert sum(path.endswith(".fits") for path, _ in sdss.requests) == 5
    assert sdss.asked("x_results") == 0, "the shared catalog serves too"
    assert sorted(dr17.root.rglob("*")) == before
    assert len(files_of(own.root)) == 5


def test_a_cache_that_cannot_be_written_serves_what_it_has(dr17, monkeypatch):
    ids = dr17.catalog().index.unique()
    dr17.spectra(ids[:8])

    def read_only(*arguments):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(cache.os, "replace", read_only)
    assert dr17.spectra(ids[:8]).sizes["star"] == 8
    with pytest.raises(CacheError, match="LAB_DATA"):
        dr17.spectra(ids)
    assert len(files_of(dr17.root)) == 8


def test_space_and_time_are_announced(dr17, monkeypatch, capsys):
    monkeypatch.setattr(archive, "ANNOUNCE", 10)
    ids = dr17.catalog().index.unique()
    dr17.spectra(ids)
    announced = capsys.readouterr().err
    assert "20 spectra are to be downloaded" in announced
    assert "LAB_STORAGE=arrays" in announced
    dr17.spectra(ids)
    assert "to be downloaded" not in capsys.readouterr().err


def test_a_disk_that_is_too_small_is_told_beforehand(dr17, sdss, monkeypatch):
    ids = dr17.catalog().index.unique()
    monkeypatch.setattr(
        archive.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6)
    )
    with pytest.raises(CacheError, match="make room"):
        dr17.spectra(ids)
    assert not any(path.endswith(".fits") for path, _ in sdss.requests)


def test_what_to_keep_comes_from_the_environment(dr17, monkeypatch):
    ids = dr17.catalog().index.unique()[:4]
    monkeypatch.setenv("LAB_STORAGE", "arrays")
    dr17.spectra(ids)
    assert (len(files_of(dr17.root)), len(list(dr17.root.rglob("*.npz")))) == (0, 4)
    with pytest.raises(ValueError, match="'files' or 'arrays'"):
        dr17.spectra(ids, storage="pickles")


# ---------------------------------------------------------------- course files


@pytest.mark.parametrize("place", [".", "dr17"])
def test_course_files_are_taken_from_the_data_folder(shared_data, tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    for file in (shared_data / "course").iterdir():
        shutil.copy(file, folder)
    found = open_survey("dr17", tmp_path)
    assert found.mystery().star.item() == "2M16333217+3942519"
    assert int(found.continuum_pixels().sum()) == 529


def test_course_files_are_fetched_and_checked(shared_data, tmp_path, monkeypatch):
    shutil.copytree(shared_data / "course", tmp_path / "course", copy_function=shutil.copyfile)
    with serving(tmp_path / "course") as server:
        monkeypatch.setattr(archive, "COURSE", server.url + "/")
        found = open_survey("dr17", tmp_path / "data")
        assert found.mystery().sizes == {"star": 1, "wavelength": 8575}
        assert found.continuum_pixels().size == 7214
        with monkeypatch.context() as patch:
            patch.setitem(archive.COURSE_FILES, "mystery_spec_wiped.fits", "0" * 64)
            with pytest.raises(ArchiveError, match="sha256 differs"):
                open_survey("dr17", tmp_path / "other").mystery()
    assert found.mystery().sizes["star"] == 1, "kept, without a network"


def test_without_a_mystery_star_it_is_said_where_to_put_it(sdss, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "COURSE", sdss.url + "/nowhere/")
    with pytest.raises(ArchiveError, match=r"mystery_spec_wiped\.fits .*Put it into"):
        open_survey("dr17", tmp_path).mystery()
    with pytest.raises(ArchiveError, match=r"cannon_continuum_apogee\.npz .*Put it into"):
        open_survey("dr17", tmp_path).continuum_pixels()


# ---------------------------------------------------------------- the real layout


def test_the_replica_over_http(shared_data, tmp_path):
    replica = shared_data / "dr17-replica"
    with serving(replica, fault=bad_day(seed=11)):
        found = open_survey("dr17", tmp_path)
        with pytest.warns(UserWarning, match="21 of 181 spectra are left out"):
            spectra = found.spectra(found.catalog().index)
        again = found.fingerprint(found.catalog().loc[spectra.star.values])
    assert files_of(tmp_path) == files_of(replica)
    assert again == found.fingerprint(found.catalog().loc[spectra.star.values]), (
        "without a network, too"
    )
    assert set(left_out(spectra).reason) == {"not on the server (404)"}


# ---------------------------------------------------------------- the simulated survey


@pytest.fixture
def simulated(mirror, tmp_path, monkeypatch):
    """The simulated survey, with the small archive in the place of the one that takes long to write."""
    simulate = pytest.importorskip("mock_survey.archive")
    folder = shutil.copytree(mirror, tmp_path / "simulated" / "v0")
    write_apstar(folder / "mystery.fits", "mystery")
    pixels = np.r_[322:3242, 3648:6048, 6412:8306]
    np.savez(
        folder / "continuum_pixels.npz", trusted=pixels % 10 == 0, wavelengths=WAVELENGTH[pixels]
    )
    cache.write_manifest(folder, "*")
    monkeypatch.setattr(simulate, "write_survey", lambda folders: folders[0] / "v0")
    return open_survey("simulated", tmp_path)


def test_the_simulated_survey_goes_the_same_way(simulated, mirror):
    table = simulated.catalog()
    pd.testing.assert_frame_equal(table, read_tables(mirror))
    assert_right(simulated.spectra(table.index), mirror)
    assert simulated.mystery().star.item() == "mystery"
    assert simulated.continuum_pixels().size == 7214
    assert repr(simulated).startswith("<simulated survey in ")


def test_missing_files_of_the_simulated_survey_are_told(simulated):
    ids = simulated.catalog().index.unique()
    (path,) = simulated.root.rglob(f"*{ids[6]}.fits")
    path.unlink()
    with pytest.warns(UserWarning, match="no such file"):
        assert simulated.spectra(ids).sizes["star"] == 19
