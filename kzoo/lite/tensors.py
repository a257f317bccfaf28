"""In the child process: every value inside of a .tflite, for an image, in real numbers.

With all tensors kept, XNNPACK stands aside and no operator writes over what another one read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from kzoo.environment import cores
from kzoo.lite import flatbuffer

ENDS = {"int8": (-128, 127), "uint8": (0, 255)}
"""The least and the largest whole number."""


class Runner:
    """A file of batch 1 in LiteRT's built-in kernels.

    Args:
        data: the file.
        encode: what it takes for an image (1, h, w, c).
    """

    def __init__(self, data: bytes, encode: Callable[[np.ndarray], np.ndarray]) -> None:
        self.model = flatbuffer.parse(data)
        self.encode = encode
        self._interpreter = Interpreter(
            model_content=data,
            num_threads=cores(),
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()

    @property
    def graph(self) -> schema.SubGraphT:
        return self.model.subgraphs[0]

    @property
    def logits(self) -> int:
        """The tensor that enters the last softmax, or else the output."""
        found = flatbuffer.logits_tensor(self.model)
        return int(self.graph.outputs[0]) if found is None else found

    def floats(self) -> list[int]:
        """The float32 tensors that an operator or the caller writes."""
        written = {int(i) for op in self.graph.operators for i in op.outputs}
        written |= set(map(int, self.graph.inputs))
        return [i for i in sorted(written) if self.graph.tensors[i].type == flatbuffer.FLOAT32]

    def run(self, image: np.ndarray, tensors: Sequence[int]) -> list[np.ndarray]:
        """The values of tensors, (1, ...), for one image (h, w, c); whole numbers dequantized."""
        self._interpreter.set_tensor(self._input["index"], self.encode(image[None]))
        self._interpreter.invoke()
        return [self._real(i, self._interpreter.get_tensor(i)) for i in tensors]

    def _real(self, index: int, values: np.ndarray) -> np.ndarray:
        scale = self.scale(index)
        if scale is None or not np.issubdtype(values.dtype, np.integer):
            return values
        return (values.astype(np.float32) - scale[1]) * np.float32(scale[0])

    def scale(self, index: int) -> tuple[float, int] | None:
        """(scale, zero point) of a tensor that has one of each."""
        about = self.graph.tensors[index].quantization
        if about is None or about.scale is None or len(about.scale) != 1:
            return None
        return float(about.scale[0]), int(about.zeroPoint[0])

    def range(self, index: int) -> list[float] | None:
        """What an 8-bit tensor reaches from and to, or None of another one."""
        scale = self.scale(index)
        ends = ENDS.get(flatbuffer.DTYPES[self.graph.tensors[index].type])
        return None if scale is None or ends is None else [scale[0] * (e - scale[1]) for e in ends]


def kernel(model: schema.ModelT, tensor: schema.TensorT) -> np.ndarray | None:
    """A float32 or int8 kernel's values in real numbers, float64; None of another one."""
    data = model.buffers[tensor.buffer].data
    dtype = {"float32": np.float32, "int8": np.int8}.get(flatbuffer.DTYPES[tensor.type])
    if data is None or dtype is None:
        return None
    values = np.frombuffer(bytes(data), dtype).reshape(tensor.shape).astype(np.float64)
    if dtype == np.float32:
        return values
    steps, axis = np.asarray(tensor.quantization.scale), tensor.quantization.quantizedDimension
    shape = [-1 if i == axis else 1 for i in range(values.ndim)]
    return values * (steps.reshape(shape) if len(steps) > 1 else steps)
