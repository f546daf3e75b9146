"""Write mystery_star.fits.gz of apogee_archive: the course's real mystery star, without its name.

Flux, error and mask (HDU 1 to 3) are copied bit by bit; of the header only what a reader needs.

    python packages/mock_survey/calibration/pack_mystery.py mystery_spec_wiped.fits
"""

import argparse
import gzip
import io
from pathlib import Path

from astropy.io import fits

from apogee_archive.settings import table

KEPT = ["SNR", "NVISITS", "NWAVE", "CRVAL1", "CDELT1", "CRPIX1", "CTYPE1", "DC-FLAG"]
KEPT += [f"{chip}{end}" for chip in "BGR" for end in ("MIN", "MAX")]


def main():
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, default=table("mystery_star.fits.gz"))
    arguments = parser.parse_args()
    packed = io.BytesIO()
    with fits.open(arguments.file) as hdus:
        primary = fits.PrimaryHDU()
        primary.header["OBJID"] = "mystery star"
        for key in KEPT:
            if key in hdus[0].header:
                primary.header[key] = hdus[0].header[key]
        primary.header["HISTORY"] = (
            "SDSS/APOGEE spectrum, packed for the lab; see README.md beside this file"
        )
        fits.HDUList(
            [primary, *(fits.ImageHDU(hdus[number].data) for number in (1, 2, 3))]
        ).writeto(packed)
    arguments.out.write_bytes(gzip.compress(packed.getvalue(), 9, mtime=0))
    print(f"{arguments.out.stat().st_size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
