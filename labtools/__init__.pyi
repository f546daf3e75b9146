from . import (
    cannon as cannon,
)
from . import (
    checkpoints as checkpoints,
)
from . import (
    continuum as continuum,
)
from . import (
    coverage as coverage,
)
from . import (
    isochrones as isochrones,
)
from . import (
    jwst as jwst,
)
from . import (
    mcmc as mcmc,
)
from . import (
    plots as plots,
)
from . import (
    selection as selection,
)
from . import (
    spectra as spectra,
)
from . import (
    starnet as starnet,
)
from . import (
    surveys as surveys,
)
from . import (
    twins as twins,
)
from .cannon import Cannon as Cannon
from .checkpoints import save_figures as save_figures
from .checkpoints import write_checkpoint as write_checkpoint
from .continuum import (
    find_continuum_pixels as find_continuum_pixels,
)
from .continuum import (
    normalize as normalize,
)
from .continuum import (
    running_quantile as running_quantile,
)
from .selection import (
    LABELS as LABELS,
)
from .selection import (
    bias_and_scatter as bias_and_scatter,
)
from .selection import (
    count_cuts as count_cuts,
)
from .selection import (
    log_g as log_g,
)
from .selection import (
    select_giants as select_giants,
)
from .selection import (
    split_by_star as split_by_star,
)
from .spectra import cap_snr as cap_snr
from .spectra import resample as resample
from .surveys import (
    lab_cannon as lab_cannon,
)
from .surveys import (
    left_out as left_out,
)
from .surveys import (
    m71_spectra as m71_spectra,
)
from .surveys import (
    normalized_giants as normalized_giants,
)
from .surveys import (
    open_pair as open_pair,
)
from .surveys import (
    open_survey as open_survey,
)
from .surveys import (
    read_apstar as read_apstar,
)
from .surveys import (
    real_mystery as real_mystery,
)

__version__: str
