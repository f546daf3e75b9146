"""The catalog of stars: from SkyServer by SQL, from a downloaded allStar file, or from two CSV tables."""

import csv
import io
import json
import mmap
import re
import warnings
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

__all__ = [
    "FIELDS",
    "plain",
    "query_catalog",
    "query_fields",
    "read_allstar",
    "read_tables",
    "sql_of",
    "tidy",
]

_CSV = {"keep_default_na": False, "na_values": [""], "float_precision": "round_trip"}
_FROM = "FROM apogeeStar AS s JOIN aspcapStar AS a ON a.apstar_id = s.apstar_id WHERE s.field = '{field}'"


def tidy(table, source, raw=False):
    """The catalog as the lab uses it, from a table with the columns `COLUMNS` in any case and order.

    Returns a DataFrame indexed by `apogee_id` (which may repeat), names in lower case, flags and counts
    int64, all other numbers float64 with the fillers of the archive (not finite, or below -9000) as NaN. Rows
    that are the same in every column, as a join on a repeated key makes them, are kept once. With
    `raw` the fillers stay as they are.

    Raises CorruptFileError, beginning with `source`, if columns are missing or hold something else.
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


def without_fillers(catalog):
    """A catalog with the fillers of the archive as NaN."""
    numbers = catalog.select_dtypes(float)
    return catalog.assign(**numbers.where(np.isfinite(numbers) & (numbers > -9000)))


def _column(values, name, source):
    if name in TEXT:
        return values.fillna("").astype(str).str.strip()
    try:
        numbers = pd.to_numeric(values.replace(["null", "NULL"], np.nan))
        found = numbers.astype(np.int64 if name in FLAGS else float)
        if name in FLAGS and not (found == numbers).all():
            raise ValueError("not all are whole numbers")
    except (TypeError, ValueError, OverflowError) as fault:
        raise CorruptFileError(
            f"{source}: column {name} holds something else than it should ({fault})"
        ) from fault
    return found


def sql_of(field):
    """SQL for the stars of one field, in words that SkyServer's T-SQL and sqlite both understand."""
    if not re.fullmatch(r"[\w+. -]{1,64}", field, re.ASCII):
        raise ValueError(f"{field!r} is no field name of APOGEE")
    columns = [f"{'s' if name in OF_STAR else 'a'}.{name} AS {name}" for name in COLUMNS]
    return f"SELECT {', '.join(columns)} {_FROM.format(field=field)}".replace(
        "s.file AS file", "s.[file] AS [file]"
    )


def query_catalog(fields=FIELDS, raw=False):
    """All stars of `fields` from SkyServer, by a query a field that a count checks, as a `tidy` DataFrame.

    Raises ArchiveError if the server does not answer, answers something else than the table, or has no star
    there.
    """
    tables = {field: _query_field(field) for field in fields}
    empty = ", ".join(field for field, table in tables.items() if table.empty)
    tables = [table for table in tables.values() if len(table)]
    if not tables:
        raise ArchiveError(f"SkyServer has no star in {empty}: are the names of the fields right?")
    if empty:
        warnings.warn(f"SkyServer has no star in {empty}", stacklevel=3)
    return tidy(pd.concat(tables, ignore_index=True), "SkyServer", raw)


def query_fields():
    """Names of all fields that SkyServer has."""
    return tuple(
        _ask("SELECT DISTINCT s.field AS field FROM apogeeStar AS s", ("field",)).field.str.strip()
    )


def _query_field(field):
    for _ in range(2):
        table = _ask(sql_of(field), COLUMNS)
        count = _ask(f"SELECT COUNT(*) AS stars {_FROM.format(field=field)}", ("stars",))
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


def _ask(sql, columns):
    """The answer to `sql` as a DataFrame of text with just these columns, by astroquery's query and our one client."""
    query = SDSS.query_sql_async(sql, data_release=17, get_query_payload=True)
    url = f"{SDSS._get_query_url(17)}?{urlencode(query)}"
    try:
        return fetch(url, partial(parse_answer, columns), quiet=120.0, attempts=5)
    except TransferError as fault:
        raise ArchiveError(
            f"SkyServer ({conf.skyserver_baseurl}) gave no catalog, at last: {fault.reason}. "
            "Wait, or put an allStar file into the data folder (docs/real-data.md)."
        ) from fault


def parse_answer(columns, content):
    """SkyServer's CSV as a DataFrame of text. Raises ValueError if it is something else, or cut off."""
    with wrap_read_errors("the answer", "the table that was asked for"):
        text = content.decode()
        names, *rows = csv.reader(
            [line for line in text.splitlines() if not line.startswith("#")] or [""], strict=True
        )
        if [name.strip().lower() for name in names] != list(columns):
            raise ValueError(f"it is {plain(text)!r}")
        if not text.endswith("\n") or any(len(row) != len(columns) for row in rows):
            raise ValueError(f"it is cut off, or its rows do not all have {len(columns)} columns")
        return pd.DataFrame(rows, columns=columns, dtype=object)


def plain(text, length=200):
    """Text of a message or an HTML page on one line, shortened."""
    text = " ".join(
        re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", text[:20_000], flags=re.S).split()
    )
    return text if len(text) <= length else text[: length - 1] + "…"


def read_allstar(path, fields=FIELDS, raw=False):
    """The catalog from a downloaded allStar or allStarLite FITS file of DR17, read through a memory map.

    Only the needed columns of the rows in `fields` (None: of all rows) are copied out of the file, which may
    be larger than the memory. Returns a `tidy` DataFrame; raises CorruptFileError if the file is something else.
    """
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
            table = pd.DataFrame(
                {name: _from_fits(np.asarray(data[column])[rows]) for name, column in here.items()}
            )
    if table.empty:
        raise CorruptFileError(f"{path}: no star of {', '.join(fields or ['any field'])} in it")
    return tidy(table, Path(path).name, raw)


def _from_fits(values):
    if values.size != len(values):
        raise ValueError(f"a column holds {values.shape[1:]} numbers a row, one is expected")
    values = values.reshape(len(values))
    return (
        values.astype(str)
        if values.dtype.kind in "SU"
        else values.astype(values.dtype.newbyteorder("="))
    )


def read_tables(folder, raw=False):
    """The catalog from apogeeStar.csv and aspcapStar.csv in `folder`, joined as SkyServer joins them."""
    with wrap_read_errors(folder, "a folder with the two tables of SkyServer"):
        stars, labels = (
            pd.read_csv(
                Path(folder) / f"{name}.csv", dtype=dict.fromkeys([*TEXT, "aspcap_id"], str), **_CSV
            )
            for name in ("apogeeStar", "aspcapStar")
        )
        wanted = ["apstar_id", *(name for name in COLUMNS if name not in OF_STAR)]
        joined = stars.merge(labels[[name for name in wanted if name in labels]], on="apstar_id")
        return tidy(joined, str(folder), raw)


def catalog_bytes(catalog):
    """A catalog as CSV below one line of JSON, its `attrs`."""
    return f"# {json.dumps(catalog.attrs)}\n{catalog.reset_index().to_csv(index=False)}".encode()


def catalog_of(content):
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
"""How a catalog is kept (see `apogee_archive.cache.DATASET`)."""
