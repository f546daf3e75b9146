"""The columns of the catalog, and the five labels of the lab among them.

>>> len(COLUMNS), LABELS
(25, ['teff', 'logg', 'fe_h', 'mg_fe', 'si_fe'])
"""

__all__ = ["COLUMNS", "ERRORS", "FIELDS", "FLAGS", "LABELS", "OF_STAR", "PARAMETERS", "TEXT"]

LABELS = ["teff", "logg", "fe_h", "mg_fe", "si_fe"]
"""The five labels of the lab: K, dex (cgs), dex, dex, dex."""

FIELDS = ("M15", "N6791", "K2_C4_168-21", "060+00")
"""The lab's four fields."""

TEXT = ("apogee_id", "apstar_id", "file", "telescope", "field")
"""Columns of text."""

FLAGS = ("nvisits", "starflag", "extratarg", "aspcapflag")
"""Columns of whole numbers: a count, and three bit masks."""

PARAMETERS = ("teff", "logg", "m_h", "alpha_m", "fe_h", "mg_fe", "si_fe")
ERRORS = ("teff_err", "logg_err", "fe_h_err", "mg_fe_err", "si_fe_err")

OF_STAR = (*TEXT, "snr", *FLAGS[:3], "ra", "dec", "vhelio_avg")
"""Columns of the table apogeeStar; the others are of aspcapStar."""

COLUMNS = (*OF_STAR, "aspcapflag", *PARAMETERS, *ERRORS)
"""All columns: 5 of text, SNR, 4 whole numbers, degrees (2), km/s, and the pipeline's labels."""
