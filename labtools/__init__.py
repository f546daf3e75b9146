"""Helper package of the stellar spectroscopy lab: what two cells of the notebooks would otherwise share."""

from labtools.apstar import read_apstar
from labtools.archive import open_survey
from labtools.cannon import Cannon
from labtools.checkpoints import save_figures, write_checkpoint
from labtools.continuum import cap_snr, find_continuum_pixels, normalize, resample, running_quantile
from labtools.sample import normalized_giants
from labtools.selection import LABELS, count_cuts, log_g, select_giants, split_by_star
from labtools.survey import left_out

__all__ = [
    "LABELS",
    "Cannon",
    "cap_snr",
    "count_cuts",
    "find_continuum_pixels",
    "left_out",
    "log_g",
    "normalize",
    "normalized_giants",
    "open_survey",
    "read_apstar",
    "resample",
    "running_quantile",
    "save_figures",
    "select_giants",
    "split_by_star",
    "write_checkpoint",
]
