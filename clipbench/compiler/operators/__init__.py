"""How operators are computed by kernels of the library: for each operator, a function that writes its records."""

from __future__ import annotations

from clipbench.compiler.encode import Encoding
from clipbench.compiler.operators import convolution_1d, indices, layers, pointwise, products, reductions, tensors

ENCODINGS: dict[object, Encoding] = {
    **pointwise.ENCODINGS,
    **tensors.ENCODINGS,
    **products.ENCODINGS,
    **reductions.ENCODINGS,
    **indices.ENCODINGS,
    **layers.ENCODINGS,
    **convolution_1d.ENCODINGS,
}
