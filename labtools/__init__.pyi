from . import (
    calibration as calibration,
    cannon as cannon,
    checkpoints as checkpoints,
    continuum as continuum,
    coverage as coverage,
    isochrones as isochrones,
    jwst as jwst,
    label_errors as label_errors,
    mcmc as mcmc,
    plots as plots,
    products as products,
    repeats as repeats,
    selection as selection,
    spectra as spectra,
    starnet as starnet,
    surveys as surveys,
    teacher as teacher,
    twins as twins,
)
from .cannon import Cannon as Cannon
from .checkpoints import save_figures as save_figures, write_checkpoint as write_checkpoint
from .continuum import (
    find_continuum_pixels as find_continuum_pixels,
    normalize as normalize,
    running_quantile as running_quantile,
)
from .products import lab_cannon as lab_cannon, normalized_giants as normalized_giants
from .selection import (
    LABELS as LABELS,
    bias_and_scatter as bias_and_scatter,
    count_cuts as count_cuts,
    log_g as log_g,
    select_giants as select_giants,
    split_by_star as split_by_star,
)
from .spectra import cap_snr as cap_snr, resample as resample
from .surveys import (
    left_out as left_out,
    m71_spectra as m71_spectra,
    open_pair as open_pair,
    open_survey as open_survey,
    read_apstar as read_apstar,
    real_mystery as real_mystery,
)

__version__: str
