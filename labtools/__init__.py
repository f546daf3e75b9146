"""The helper of the stellar spectroscopy lab: what two cells of its notebooks would share.

Names and modules are imported when they are first used, so that ``import labtools`` is quick and
needs neither torch, pymc nor astroquery. The list of names is in ``__init__.pyi``, where editors
find it too.
"""

from importlib import metadata

import lazy_loader

__version__ = metadata.version("labtools")
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
