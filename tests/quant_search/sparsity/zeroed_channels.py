"""What pruned channels are compared with: the network of the same size, with zeros in their place."""

import numpy as np
import onnx
from onnx import numpy_helper

from quant_search.sparsity.channel_flow import channel_flow
from quant_search.sparsity.channels import _kept
from quant_search.sparsity.weighted import constants_of, write


def mask_channels(model, keep):
    """A copy of `model` in which the channels that are not kept are 0 and are read with weight 0."""
    flow = channel_flow(model)
    kept = _kept(flow, keep)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    tensors = constants_of(result)
    for cut in flow.cuts:
        places = kept[cut.atoms]
        if cut.role != "carried" and not places.all():
            values = numpy_helper.to_array(tensors[cut.tensor])
            shape = [-1 if axis == cut.axis else 1 for axis in range(values.ndim)]
            write(tensors[cut.tensor], np.where(places.reshape(shape), values, np.zeros((), values.dtype)))
    return result
