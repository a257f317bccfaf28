"""In the child process: every value inside of a .tflite, for an image, in real numbers.

With all tensors kept, XNNPACK stands aside and no operator writes over what another one read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from kzoo.environment import cores
from kzoo.lite import flatbuffer

ENDS = {"int8": (-128, 127), "uint8": (0, 255)}
"""The least and the largest whole number."""
ASIDE = ("QUANTIZE", "DEQUANTIZE", "CAST")
"""Operators that stand in one of two files only."""


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
    """A kernel's or bias' values in real numbers, float64; None of what has no scale or no data."""
    data, dtype = model.buffers[tensor.buffer].data, flatbuffer.DTYPES[tensor.type]
    if data is None or dtype not in ("float32", "float16", "int32", "int8", "int4"):
        return None
    about = tensor.quantization
    if dtype.startswith("int") and (about is None or about.scale is None or not len(about.scale)):
        return None
    values = np.frombuffer(bytes(data), "int8" if dtype == "int4" else dtype)
    if dtype == "int4":  # two in a byte, the lower one first; a last one may be none
        values = np.stack([values << 4 >> 4, values >> 4], -1).ravel()[: np.prod(tensor.shape)]
    values = values.reshape(tensor.shape).astype(np.float64)
    if dtype.startswith("float"):
        return values
    steps, axis = np.asarray(about.scale), about.quantizedDimension
    shape = [-1 if i == axis else 1 for i in range(values.ndim)]
    return values * (steps.reshape(shape) if len(steps) > 1 else steps)


def paired(data: bytes, rounded: bytes) -> list[tuple[int, int]]:
    """Operators of a float file and those of a quantized one that are the same, by their numbers.

    By names where the file has kzoo's; else by their order, types and shapes.
    """
    described = []
    for each in (data, rounded):
        model = flatbuffer.parse(each)
        graph = model.subgraphs[0]
        rows = []
        for number, op in enumerate(graph.operators):
            tensor = graph.tensors[op.outputs[0]]
            kind = flatbuffer.operator(model, op)
            if kind not in ASIDE:
                rows.append((number, (kind, tuple(tensor.shape)), tensor.name))
        described.append(rows)
    first, second = described
    by_name = {name: number for number, _, name in second}
    pairs = [(number, by_name[name]) for number, _, name in first if name in by_name]
    if len(pairs) < 0.7 * len(first):
        pairs = []
    # What is quantized behind it has another name, such as the last one.
    done = [{pair[side] for pair in pairs} for side in (0, 1)]
    first, second = (
        [row for row in rows if row[0] not in of] for rows, of in zip(described, done, strict=True)
    )
    matcher = SequenceMatcher(None, [r[1] for r in first], [r[1] for r in second], autojunk=False)
    pairs += [
        (first[block.a + i][0], second[block.b + i][0])
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    ]
    return sorted(pairs)
