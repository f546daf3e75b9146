"""Isochrones from the web form of MIST (mist.science): one small request each, instead of grids of 7 GB."""

import io
import re
import zipfile
from functools import partial
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from labtools.cache import writing
from labtools.errors import TransferError, reading
from labtools.isochrones import isochrone, read_mist
from labtools.sdss.catalog import plain
from labtools.sdss.http import fetch
from labtools.settings import data_folders

__all__ = ["fetch_mist"]

ADDRESS = "https://mist.science"
LIMIT = 64 * 2**20  # bytes of a file, unpacked
FORM = {
    "version": "MIST1", "v_div_vcrit": "vvcrit0.4", "age_type": "single", "age_scale": "linear", "afe": "afep0.0",
    "alpha_value": "p0", "output_option": "photometry", "output": "UBVRIplus", "Av_value": "0",
}  # fmt: skip


def fetch_mist(age=6.0, fehs=(0.0, -1.0), folder=None, address=ADDRESS):
    """Fetch isochrones of MIST 1.2 from its web interpolator, one for each [Fe/H]; return their paths.

    Parameters
    ----------
    age : Gyr. fehs : [Fe/H] of each isochrone.
    folder : None means `cache/mist` in the data folder. What is there already is not asked for again.

    The interpolator is a form that answers with a page that links to a zip archive; its fields are those that public
    clients sent to mist.science in 2026. This could be tried against a stand-in for the server only.

    Raises ArchiveError if the server does not give what was asked for; nothing is kept then.
    """
    folder, paths = Path(folder) if folder else data_folders()[0] / "cache" / "mist", []
    for feh in fehs:
        paths.append(folder / f"MIST_v1.2_feh_{'m' if feh < 0 else 'p'}{abs(feh):.2f}_{age:g}Gyr.iso.cmd")
        if not paths[-1].exists():
            page, form = f"{address}/iso_form.php", {"age_value": f"{age * 1e9:.6g}", "FeH_value": f"{feh:g}"}
            link = urljoin(page, fetch(page, _link, form=FORM | form, quiet=120.0))
            if urlsplit(link)[:2] != urlsplit(address)[:2]:
                raise TransferError(address, f"answers with a link to another place, {link}: not followed")
            fetch(link, partial(_keep, paths[-1], age, feh))
    return paths


def _link(content):
    """The link to the archive on the page that answers the form."""
    page = content.decode(errors="replace")
    link = re.search(r'href\s*=\s*"([^"]+\.zip)"', page)
    if not link:
        raise ValueError(f"the MIST interpolator says {plain(page)!r}: try again in an hour")
    return link[1]


def _keep(path, age, feh, content):
    """Keep the isochrone file of a zip archive if it is the one that was asked for."""
    with reading("the answer", "a whole zip archive of one isochrone"), zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [member for member in archive.infolist() if ".iso" in member.filename]
        if len(members) != 1 or members[0].file_size > LIMIT:
            raise ValueError(f"it holds {archive.namelist()[:5]}")
        text = archive.read(members[0])
    with writing(path) as part:
        part.write_bytes(text)
        isochrone(read_mist(part), age, feh)
