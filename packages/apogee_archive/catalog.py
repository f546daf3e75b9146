"""The catalog of stars: from SkyServer by SQL, from an allStar file, or from two CSV tables."""

from __future__ import annotations

import csv
import io
import json
import mmap
import re
import warnings
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pandas as pd
from astropy.io import fits
from astroquery.sdss import SDSS, conf

from apogee_archive.cache import Codec
from apogee_archive.columns import COLUMNS, FIELDS, FLAGS, OF_STAR, TEXT
from apogee_archive.errors import ArchiveError, CorruptFileError, TransferError, wrap_read_errors
from apogee_archive.fits_headers import fits_headers
from apogee_archive.http import fetch
from apogee_archive.limits import check_size, read_within

__all__ = [
    "CODEC",
    "FIELDS",
    "plain",
    "query_catalog",
    "query_fields",
    "read_allstar",
    "read_tables",
    "sql_of",
    "tidy",
    "without_fillers",
]

FILLER = -999.0  # this and everything below it is no measurement: -999, -9999, -9999.99
_JOIN = (
    "FROM apogeeStar AS s JOIN aspcapStar AS a ON a.apstar_id = s.apstar_id "
    "WHERE s.field = '{field}'"
)
_CSV = {"keep_default_na": False, "na_values": [""]}
if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1):
    _CSV["float_precision"] = "round_trip"  # since pandas 3.1 nothing else, and deprecated


def tidy(table: pd.DataFrame, source: str, raw: bool = False) -> pd.DataFrame:
    """The catalog as the lab uses it, from a table with the columns `COLUMNS` in any order.

    Parameters
    ----------
    table : DataFrame
        One row per entry of a star; names of columns in any case.
    source : str
        Where it is from, for messages.
    raw : bool
        Whether the fillers of the archive stay.

    Returns
    -------
    pandas.DataFrame
        Indexed by `apogee_id` (which may repeat), names in lower case, flags and counts int64, all
        other numbers float64 with fillers (not finite, or -999 and below) as NaN. Rows that are the
        same in every column, as a join on a repeated key makes them, are kept once.

    Raises
    ------
    CorruptFileError
        If columns are missing or hold something else. A flag that is missing (masked) is no flag:
        it is not taken for one without bits, nor for its filler's bits.

    Examples
    --------
    >>> row = {name: ["2M1"] for name in TEXT} | {name: [0] for name in COLUMNS[5:]}
    >>> table = tidy(pd.DataFrame(row | {"teff": [-9999.0]}), "an example")
    >>> table.index[0], float(table.teff.iloc[0])
    ('2M1', nan)
    """
    table = table.rename(columns=lambda name: str(name).strip().lower())
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing or not table.columns.is_unique:
        what = f"has no column {', '.join(missing)}" if missing else "has two columns of one name"
        raise CorruptFileError(
            f"{source}: the table {what}; its columns are {', '.join(table.columns[:8])} ..."
        )
    columns = {name: _column(table[name], name, source) for name in COLUMNS}
    catalog = pd.DataFrame(columns, index=table.index).drop_duplicates().set_index("apogee_id")
    return catalog if raw else without_fillers(catalog)


def without_fillers(catalog: pd.DataFrame) -> pd.DataFrame:
    """A catalog with the fillers of the archive (not finite, or -999 and below) as NaN.

    Examples
    --------
    >>> without_fillers(pd.DataFrame({"mg_fe": [0.1, -999.0, -9999.99]})).mg_fe.tolist()
    [0.1, nan, nan]
    """
    numbers = catalog.select_dtypes(float)
    return catalog.assign(**numbers.where(np.isfinite(numbers) & (numbers > FILLER)))


def _column(values: pd.Series, name: str, source: str) -> pd.Series:
    """A column as text, as whole numbers, or as floats."""
    if name in TEXT:
        return values.fillna("").astype(str).str.strip()
    try:
        numbers = pd.to_numeric(values.replace(["null", "NULL"], np.nan))
        if name in FLAGS and numbers.isna().any():
            raise ValueError(
                f"{numbers.isna().sum()} of {len(numbers)} are missing or masked: give them their "
                "value, or leave these rows out"
            )
        found = numbers.astype(np.int64 if name in FLAGS else float)
        if name in FLAGS and not (found == numbers).all():
            raise ValueError("not all are whole numbers")
    except (TypeError, ValueError, OverflowError) as fault:
        raise CorruptFileError(
            f"{source}: column {name} holds something else than it should ({fault})"
        ) from fault
    return found


# ---------------------------------------------------------------- SkyServer


def sql_of(field: str) -> str:
    """SQL for the stars of one field, in words that SkyServer's T-SQL and sqlite both understand.

    Parameters
    ----------
    field : str
        Name of a field of APOGEE.

    Returns
    -------
    str
        A query that joins the tables apogeeStar and aspcapStar.

    Raises
    ------
    ValueError
        For anything that is not the name of a field: nothing else gets into the query.

    Examples
    --------
    >>> sql_of("M15")[-21:]
    "WHERE s.field = 'M15'"
    """
    if not re.fullmatch(r"[\w+. -]{1,64}", field, re.ASCII):
        raise ValueError(f"{field!r} is no field name of APOGEE")
    columns = [f"{'s' if name in OF_STAR else 'a'}.{name} AS {name}" for name in COLUMNS]
    # FILE is a word of T-SQL itself, so it stands in brackets.
    return f"SELECT {', '.join(columns)} {_JOIN.format(field=field)}".replace(
        "s.file AS file", "s.[file] AS [file]"
    )


def query_catalog(fields: Iterable[str] = FIELDS, raw: bool = False) -> pd.DataFrame:
    """All stars of `fields` from SkyServer: one query per field, checked by a count of its rows.

    Parameters
    ----------
    fields : iterable of str
        Names of fields.
    raw : bool
        Whether the fillers of the archive stay.

    Returns
    -------
    pandas.DataFrame
        See `tidy`.

    Raises
    ------
    ArchiveError
        If the server does not answer, answers something else than the table, or has no star there.
    """
    tables = {field: _query_field(field) for field in fields}
    empty = ", ".join(field for field, table in tables.items() if table.empty)
    parts = [table for table in tables.values() if len(table)]
    if not parts:
        raise ArchiveError(f"SkyServer has no star in {empty}: are the names of the fields right?")
    if empty:
        warnings.warn(f"SkyServer has no star in {empty}", stacklevel=3)
    return tidy(pd.concat(parts, ignore_index=True), "SkyServer", raw)


def query_fields() -> tuple[str, ...]:
    """Names of all fields that SkyServer has; raises as `query_catalog`."""
    answer = _ask("SELECT DISTINCT s.field AS field FROM apogeeStar AS s", ("field",))
    return tuple(answer.field.str.strip())


def _query_field(field: str) -> pd.DataFrame:
    """The rows of one field as text. A second try, if their number is not that of the count."""
    for _ in range(2):
        table = _ask(sql_of(field), COLUMNS)
        count = _ask(f"SELECT COUNT(*) AS stars {_JOIN.format(field=field)}", ("stars",))
        if count.stars.to_list() == [str(len(table))]:
            break
    else:
        counted = (
            f"counts {count.stars.iloc[0]} rows" if len(count) else "gave no count of the rows"
        )
        raise ArchiveError(
            f"SkyServer {counted} in field {field}, but sent {len(table)}; run this again later"
        )
    if (table.field.str.strip().str.lower() != field.lower()).any():
        raise ArchiveError(f"SkyServer sent rows of other fields than {field}, the one asked for")
    return table


def _ask(sql: str, columns: tuple[str, ...]) -> pd.DataFrame:
    """The answer to `sql` as text with just these columns: astroquery's query, our own client."""
    query = SDSS.query_sql_async(sql, data_release=17, get_query_payload=True)
    url = f"{SDSS._get_query_url(17)}?{urlencode(query)}"
    try:
        return fetch(url, partial(parse_answer, columns), read_timeout=120.0, attempts=5)
    except TransferError as fault:
        raise ArchiveError(
            f"SkyServer ({conf.skyserver_baseurl}) gave no catalog, at last: {fault.reason}. "
            "Wait, or put an allStar file into the data folder (docs/real-data.md)."
        ) from fault


def parse_answer(columns: Iterable[str], content: bytes) -> pd.DataFrame:
    """SkyServer's CSV as a DataFrame of text.

    Raises
    ------
    ValueError
        If it is something else, or cut off.

    Examples
    --------
    >>> parse_answer(["stars"], b"#Table1\\nstars\\n12\\n").stars.to_list()
    ['12']
    """
    columns = list(columns)
    with wrap_read_errors("the answer", "the table that was asked for"):
        text = content.decode()
        names, *rows = csv.reader(
            [line for line in text.splitlines() if not line.startswith("#")] or [""], strict=True
        )
        if [name.strip().lower() for name in names] != columns:
            raise ValueError(f"it is {plain(text)!r}")
        if not text.endswith("\n") or any(len(row) != len(columns) for row in rows):
            raise ValueError(f"it is cut off, or its rows do not all have {len(columns)} columns")
        return pd.DataFrame(rows, columns=columns, dtype=object)


def plain(text: str, length: int = 200) -> str:
    """Text of a message or an HTML page on one line, shortened.

    Examples
    --------
    >>> plain("<html><b>Not</b> now</html>")
    'Not now'
    """
    text = " ".join(
        re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", text[:20_000], flags=re.S).split()
    )
    return text if len(text) <= length else text[: length - 1] + "…"


# ---------------------------------------------------------------- files


def read_allstar(
    path: str | Path, fields: Iterable[str] | None = FIELDS, raw: bool = False
) -> pd.DataFrame:
    """The catalog from a downloaded allStar or allStarLite FITS file of DR17.

    The file is read through a memory map: only the needed columns of the rows in `fields` are
    copied out of it, so that it may be larger than the memory.

    Parameters
    ----------
    path : str or Path
        The file, as the archive has it or saved again by astropy.
    fields : iterable of str, optional
        Names of fields; None takes all rows.
    raw : bool
        Whether the fillers of the archive stay.

    Returns
    -------
    pandas.DataFrame
        See `tidy`.

    Raises
    ------
    CorruptFileError
        If the file is something else, has no star in `fields`, or if flags are masked in it.
    FileNotFoundError
        If it is not there.
    """
    fields = None if fields is None else list(fields)
    check_size(path, "allstar")
    with wrap_read_errors(path, "a readable allStar file"):
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            fits_headers(content)
        with fits.open(path, memmap=True, disable_image_compression=True) as hdus:
            data = hdus[1].data
            names = {name.lower(): name for name in data.names}
            here = {name: names[name] for name in COLUMNS if name in names}
            rows = np.arange(len(data))
            if fields is not None:
                rows = np.flatnonzero(
                    np.isin(np.char.strip(np.asarray(data[names["field"]], str)), fields)
                )
            nulls = {column.name: column.null for column in data.columns}
            table = pd.DataFrame(
                {
                    name: _from_fits(np.asarray(data[column])[rows], nulls[column])
                    for name, column in here.items()
                }
            )
    if table.empty:
        raise CorruptFileError(f"{path}: no star of {', '.join(fields or ['any field'])} in it")
    return tidy(table, Path(path).name, raw)


def _from_fits(values: np.ndarray, null: int | None) -> np.ndarray:
    """One value per row, in native byte order; whole numbers that are masked (TNULL) as NaN."""
    if values.size != len(values):
        raise ValueError(f"a column holds {values.shape[1:]} numbers per row, one is expected")
    values = values.reshape(len(values))
    if values.dtype.kind in "SU":
        return values.astype(str)
    values = values.astype(values.dtype.newbyteorder("="))
    if null is not None and values.dtype.kind in "iu" and (values == null).any():
        return np.where(values == null, np.nan, values)
    return values


def read_tables(folder: str | Path, raw: bool = False) -> pd.DataFrame:
    """The catalog from apogeeStar.csv and aspcapStar.csv, joined as SkyServer joins them.

    Parameters
    ----------
    folder : str or Path
        Where the two files are.
    raw : bool
        Whether the fillers of the archive stay.

    Returns
    -------
    pandas.DataFrame
        See `tidy`.

    Raises
    ------
    CorruptFileError, FileNotFoundError
        If they are damaged, too large, or not there.
    """
    with wrap_read_errors(folder, "a folder with the two tables of SkyServer"):
        stars, labels = (
            pd.read_csv(
                io.BytesIO(read_within(Path(folder) / f"{name}.csv", "table")),
                dtype=dict.fromkeys([*TEXT, "aspcap_id"], str),
                **_CSV,
            )
            for name in ("apogeeStar", "aspcapStar")
        )
        wanted = ["apstar_id", *(name for name in COLUMNS if name not in OF_STAR)]
        joined = stars.merge(labels[[name for name in wanted if name in labels]], on="apstar_id")
        return tidy(joined, str(folder), raw)


def catalog_bytes(catalog: pd.DataFrame) -> bytes:
    """A catalog as CSV below one line of JSON, its `attrs`."""
    return f"# {json.dumps(catalog.attrs)}\n{catalog.reset_index().to_csv(index=False)}".encode()


def catalog_of(content: bytes) -> pd.DataFrame:
    """The catalog that `catalog_bytes` wrote."""
    about, _, rows = content.decode().partition("\n")
    catalog = tidy(
        pd.read_csv(io.StringIO(rows), dtype=dict.fromkeys(TEXT, str), **_CSV),
        "a kept catalog",
        raw=True,
    )
    catalog.attrs.update(json.loads(about.removeprefix("# ")))
    return catalog


CODEC = Codec(".csv", catalog_bytes, catalog_of)
"""How a catalog is kept (see `apogee_archive.cache.cached`)."""
