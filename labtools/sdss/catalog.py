"""The catalogue of stars: from SkyServer by SQL, from a downloaded allStar file, or from two CSV tables."""

import hashlib
import io
import json
import re
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.io import fits
from astroquery.sdss import SDSS, conf

from labtools.cache import writing
from labtools.errors import ArchiveError, BadFile

__all__ = [
    "FIELDS",
    "load_catalog",
    "query_catalog",
    "query_fields",
    "read_allstar",
    "read_tables",
    "save_catalog",
    "sql_of",
    "tidy",
]

FIELDS = ("M15", "N6791", "K2_C4_168-21", "060+00")
"""The lab's four fields."""

TEXT = ("apogee_id", "apstar_id", "file", "telescope", "field")
FLAGS = ("nvisits", "starflag", "extratarg", "aspcapflag")
LABELS = ("teff", "logg", "m_h", "alpha_m", "fe_h", "mg_fe", "si_fe")
ERRORS = ("teff_err", "logg_err", "fe_h_err", "mg_fe_err", "si_fe_err")
_OF_STAR = (*TEXT, "snr", *FLAGS[:3], "ra", "dec", "vhelio_avg")
COLUMNS = (*_OF_STAR, "aspcapflag", *LABELS, *ERRORS)

_CSV = {"keep_default_na": False, "na_values": [""], "float_precision": "round_trip"}
_FROM = "FROM apogeeStar AS s JOIN aspcapStar AS a ON a.apstar_id = s.apstar_id WHERE s.field = '{field}'"
ATTEMPTS = 5
BACKOFF = 1.0  # seconds before the second attempt, doubled for each further one
TIMEOUT = 120.0


def tidy(table, source, raw=False):
    """The catalogue as the lab uses it, from a table with the columns `COLUMNS` in any case and order.

    Returns a DataFrame indexed by `apogee_id` (which may repeat), names in lower case, flags and counts
    int64, all other numbers float64 with the fillers of the archive (not finite, or below -9000) as NaN. Rows
    that are the same in every column, as a join on a repeated key makes them, are kept once. With
    `raw` the fillers stay as they are.

    Raises BadFile, beginning with `source`, if columns are missing or hold something else.
    """
    table = table.rename(columns=lambda name: str(name).strip().lower())
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing or not table.columns.is_unique:
        what = f"has no column {', '.join(missing)}" if missing else "has two columns of one name"
        raise BadFile(f"{source}: the table {what}; its columns are {', '.join(table.columns[:8])} ...")
    columns = {name: _column(table[name], name, source, raw) for name in COLUMNS}
    return pd.DataFrame(columns, index=table.index).drop_duplicates().set_index("apogee_id")


def _column(values, name, source, raw):
    try:
        if name in TEXT:
            return values.fillna("").astype(str).str.strip()
        if name in FLAGS:
            return _integers(values)
        numbers = pd.to_numeric(values.replace(["null", "NULL"], np.nan)).astype(float)
    except (TypeError, ValueError, OverflowError) as fault:
        raise BadFile(f"{source}: column {name} holds something else than it should ({fault})") from fault
    return numbers if raw else numbers.where(np.isfinite(numbers) & (numbers > -9000))


def _integers(values):
    numbers = pd.to_numeric(values)
    if numbers.isna().any():
        raise ValueError(f"{numbers.isna().sum()} rows are empty")
    integers = numbers.astype(np.int64)
    if numbers.dtype.kind == "f" and not (numbers == integers).all():
        raise ValueError("not all are whole numbers")
    return integers


def sql_of(field):
    """SQL for the stars of one field, in words that SkyServer's T-SQL and sqlite both understand."""
    if not re.fullmatch(r"[\w+. -]{1,64}", field, re.ASCII):
        raise ValueError(f"{field!r} is no field name of APOGEE")
    columns = [f"{'s' if name in _OF_STAR else 'a'}.{_quoted(name)} AS {_quoted(name)}" for name in COLUMNS]
    return f"SELECT {', '.join(columns)} {_FROM.format(field=field)}"


def _quoted(name):
    return f"[{name}]" if name == "file" else name


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
    names = _ask("SELECT DISTINCT s.field AS field FROM apogeeStar AS s", ("field",))
    return tuple(names.field.astype(str).str.strip())


def _query_field(field):
    for _ in range(2):
        table = _ask(sql_of(field), COLUMNS)
        count = _ask(f"SELECT COUNT(*) AS stars {_FROM.format(field=field)}", ("stars",))
        if count.stars.to_list() == [len(table)]:
            break
    else:
        counted = f"counts {count.stars.iloc[0]} rows" if len(count) else "gave no count of the rows"
        raise ArchiveError(f"SkyServer {counted} in field {field}, but sent {len(table)}; run this again later")
    if table["field"].dtype.kind in "iuf":  # a name such as "0612" was taken for a number
        table["field"] = field
    if (table["field"].astype(str).str.strip().str.lower() != field.lower()).any():
        raise ArchiveError(f"SkyServer sent rows of other fields than {field}, the one asked for")
    return table


def _ask(sql, columns):
    """The answer to `sql` as a DataFrame with just these columns; tries again while it is something else."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACKOFF * 2 ** (attempt - 1))
        try:
            answer = SDSS.query_sql(sql, data_release=17, cache=False, timeout=TIMEOUT)
        except Exception as error:  # astroquery hands on what its parsers and the transport raise, of many kinds
            fault = f"{type(error).__name__}: {_plain(error)}"
            continue
        if answer is None:
            return pd.DataFrame(columns=columns)
        if [name.lower() for name in answer.colnames] == list(columns):
            return answer.to_pandas().set_axis(list(columns), axis=1)
        fault = f"instead of the table it sent {_plain(' '.join(answer.colnames))!r}"
    raise ArchiveError(
        f"SkyServer ({conf.skyserver_baseurl}) gave no catalogue in {ATTEMPTS} attempts. The last: {fault}. "
        "Wait, or put an allStar file into the data folder (docs/real-data.md)."
    )


def _plain(text, length=200):
    """Text of a message or an HTML page on one line, shortened."""
    text = " ".join(re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", str(text)[:20_000], flags=re.S).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def read_allstar(path, fields=FIELDS, raw=False):
    """The catalogue from a downloaded allStar or allStarLite FITS file of DR17, read through a memory map.

    Only the needed columns of the rows in `fields` (None: of all rows) are copied out of the file, which may
    be larger than the memory. Returns a `tidy` DataFrame; raises BadFile if the file is something else.
    """
    try:
        with fits.open(path, memmap=True) as hdus:
            data, source = hdus[1].data, Path(path).name
            names = {name.lower(): name for name in data.names}
            here = {name: names[name] for name in COLUMNS if name in names}
            rows = np.arange(len(data))
            if fields is not None:
                rows = np.flatnonzero(np.isin(np.char.strip(np.asarray(data[names["field"]], str)), fields))
            table = pd.DataFrame({name: _from_fits(data, column, rows) for name, column in here.items()})
    except FileNotFoundError:
        raise
    except Exception as fault:  # astropy raises many kinds on damaged files
        raise BadFile(f"{path}: not a readable allStar file ({type(fault).__name__}: {fault})") from fault
    if table.empty:
        raise BadFile(f"{path}: no star of {', '.join(fields or ['any field'])} in it")
    return tidy(table, source, raw)


def _from_fits(data, name, rows):
    values = np.asarray(data[name])[rows]
    if values.size != len(rows):
        raise ValueError(f"column {name} holds {values.shape[1:]} numbers a row, one is expected")
    values = values.reshape(len(rows))
    return values.astype(str) if values.dtype.kind in "SU" else values.astype(values.dtype.newbyteorder("="))


def read_tables(folder, raw=False):
    """The catalogue from apogeeStar.csv and aspcapStar.csv in `folder`, joined as SkyServer joins them."""
    stars, labels = (
        pd.read_csv(Path(folder) / f"{name}.csv", dtype=dict.fromkeys([*TEXT, "aspcap_id"], str), **_CSV)
        for name in ("apogeeStar", "aspcapStar")
    )
    wanted = ["apstar_id", *(name for name in COLUMNS if name not in _OF_STAR)]
    joined = stars.merge(labels[[name for name in wanted if name in labels]], on="apstar_id")
    return tidy(joined, str(folder), raw)


def save_catalog(catalog, path, **about):
    """Write a catalogue as CSV below one line of JSON: `about`, the date and the checksum of what follows."""
    body = catalog.reset_index().to_csv(index=False)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    about = {**about, "date": date, "rows": len(catalog), "sha256": hashlib.sha256(body.encode()).hexdigest()}
    with writing(path) as part:
        part.write_bytes(f"# {json.dumps(about)}\n{body}".encode())


def load_catalog(path, raw=False):
    """A catalogue that `save_catalog` wrote, described in `attrs`. Raises BadFile if it is damaged."""
    try:
        first, _, body = Path(path).read_bytes().decode().partition("\n")
        about = json.loads(first.removeprefix("# "))
        if hashlib.sha256(body.encode()).hexdigest() != about["sha256"]:
            raise ValueError("its checksum is wrong")
        table = pd.read_csv(io.StringIO(body), dtype=dict.fromkeys(TEXT, str), **_CSV)
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise BadFile(f"{path}: damaged ({fault}); delete it and run this again") from fault
    catalog = tidy(table, str(path), raw)
    catalog.attrs.update(about)
    return catalog
