"""Cut a network behind its first stages, so that batches can enter it as cached activations.

A cut runs the library's own modules. It is tried on two samples and used only if it gives the library's own features,
to the last bit; where no cut is possible the whole network runs, which costs speed and nothing else.
"""

import logging

import torch

from thaw.caching.graph_cut import image_cuts
from thaw.caching.halves import Cut
from thaw.caching.layer_cut import text_cuts
from thaw.models.network import Network
from thaw.types import ImageSpec, InputSpec

log = logging.getLogger(__name__)


def cut(network: Network, spec: InputSpec, start: int) -> Cut | None:
    """A cut in front of stage number `start`, or of the nearest earlier stage that has one; None if none has.

    None, too, if only the network's own forward may run. All modules are back in their own training or evaluation mode
    afterwards.
    """
    if network.is_whole:
        return None
    modes = {module: module.training for module in network.modules()}
    try:
        with torch.no_grad():
            if isinstance(spec, ImageSpec):
                return next(image_cuts(network.eval(), spec, start), None)
            return next(text_cuts(network.eval(), spec, start), None)
    except Exception as error:  # a library's code may raise anything when it is traced, or run with layers skipped
        log.debug("%s is not cut: %s", type(network.backbone).__name__, error, exc_info=True)
        return None
    finally:
        for module, training in modes.items():
            module.training = training
