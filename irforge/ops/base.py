"""A custom operator: an ONNX node with a body of standard operators, which native code may stand in for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx
from onnx import FunctionProto, NodeProto, helper

DOMAIN = "irforge"
VERSION = 1

# TensorRT's parser looks a plugin up by these two; releases differ in what they assume where a node lacks them.
PLUGIN_ATTRIBUTES = {"plugin_namespace": "", "plugin_version": "1"}

_Schema = onnx.defs.OpSchema
_ATTRIBUTE_TYPES = {float: _Schema.AttrType.FLOAT, int: _Schema.AttrType.INT, str: _Schema.AttrType.STRING}
_FLOATS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"]

InferShapes = Callable[[onnx.shape_inference.InferenceContext], None]


@dataclass(frozen=True)
class CustomOp:
    """One operator of the `irforge` domain. All inputs are of one floating-point type, but for `wide_inputs`.

    Attributes:
        name: operator type; TensorRT's plugin and ONNX Runtime's kernel have the same.
        summary: what it computes, in one line, for the schema and the documentation.
        inputs, output: names, as the body uses them.
        body: the statements of the body in ONNX's textual form (`onnx.parser`), standard operators only, with no
            constant of a floating-point type, so that it computes in whatever type comes in.
        infer: shape of the output for ONNX's shape inference.
        attributes: name and Python type of each required attribute; the body reads them as `@name`.
        output_type: 'T' for that of the inputs, or a type as 'tensor(int8)'.
        wide_inputs: names of inputs that are float32 whatever the others are: pixels need more than FP16's digits.
    """

    name: str
    summary: str
    inputs: tuple[str, ...]
    output: str
    body: str
    infer: InferShapes
    attributes: Mapping[str, type] = field(default_factory=dict)
    output_type: str = "T"
    wide_inputs: tuple[str, ...] = ()

    def function(self, opset: int) -> FunctionProto:
        """The body for a model of this opset. Its inner names have the operator's name before them: NVIDIA's parser
        takes a tensor of the graph for one of the body that has the same name."""
        attributes = f"<{', '.join(self.attributes)}>" if self.attributes else ""
        function = onnx.parser.parse_function(
            f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]> {self.name} {attributes}'
            f" ({', '.join(self.inputs)}) => ({self.output}) {{ {self.body} }}"
        )
        for part in (function, *function.node):
            for names in (part.input, part.output):
                names[:] = [f"{DOMAIN}_{self.name}_{name}" if name else "" for name in names]
        return function

    def node(self, inputs: list[str], output: str, name: str = "", **attributes: Any) -> NodeProto:
        """A node of this operator, with the attributes that TensorRT's parser needs to find its plugin."""
        return helper.make_node(
            self.name, inputs, [output], name=name or output, domain=DOMAIN, **attributes, **PLUGIN_ATTRIBUTES
        )

    def register(self) -> None:
        """Make the operator known to ONNX's checker and shape inference and to torch's exporter; once is enough."""
        if onnx.defs.has(self.name, VERSION, DOMAIN):
            return
        schema = _Schema(
            self.name,
            DOMAIN,
            VERSION,
            doc=self.summary,
            inputs=[
                _Schema.FormalParameter(name, "tensor(float)" if name in self.wide_inputs else "T")
                for name in self.inputs
            ],
            outputs=[_Schema.FormalParameter(self.output, self.output_type)],
            type_constraints=[("T", _FLOATS, "floating point")],
            attributes=[
                *(_Schema.Attribute(n, _ATTRIBUTE_TYPES[kind], required=True) for n, kind in self.attributes.items()),
                *(_Schema.Attribute(n, helper.make_attribute(n, value)) for n, value in PLUGIN_ATTRIBUTES.items()),
            ],
        )
        schema.set_type_and_shape_inference_function(self.infer)
        onnx.defs.register_schema(schema)


def sides(context: onnx.shape_inference.InferenceContext, index: int) -> list[onnx.TensorShapeProto.Dimension] | None:
    """The dimensions of an input, or None where nothing is known of them."""
    kind = context.get_input_type(index)
    tensor = kind.tensor_type if kind is not None else None
    return list(tensor.shape.dim) if tensor is not None and tensor.HasField("shape") else None


def set_output(
    context: onnx.shape_inference.InferenceContext,
    shape: list[onnx.TensorShapeProto.Dimension] | None,
    elem_type: int | None = None,
) -> None:
    """Declare the output: type as given or as the first input's, shape if known."""
    output = onnx.TypeProto()
    first = context.get_input_type(0)
    output.tensor_type.elem_type = elem_type or (first.tensor_type.elem_type if first is not None else 0)
    if shape is not None:
        output.tensor_type.shape.dim.extend(shape)
    context.set_output_type(0, output)
