"""The program text inside a compiled TensorRT-RTX plan, as data.

Undocumented: learnt from plans of TensorRT-RTX 1.7.1. A plan holds one or more programs, each behind the marker `NLYM`,
a 4-byte tag and an 8-byte length. A program has a header (regions of memory, accelerators), descriptors (every tensor
with type, shape, region and offset), a body (one record a launch) and, where sizes are free, a shape body (integer
arithmetic). Fused kernels that are compiled on the device carry a program of their own, with accelerators `*`.
"""

from __future__ import annotations

import operator
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_MARKER = b"NLYM"
_TOKEN = re.compile(r'"[^"]*"|[{}=]|[^\s{}="]+')
_LITERAL = re.compile(r"__s\^(-?\d+)i\d+$")
_LAYER = re.compile(r"\[ONNX Layer: (.*?)\](?:__\w+)?\s*(?=\[ONNX Layer: |$)", re.DOTALL)

Size = int | str
TYPE_BYTES = {"double": 8, "int64": 8, "float": 4, "int32": 4, "half": 2, "bfloat16": 2, "bf16": 2}
TYPE_BYTES |= dict.fromkeys(("int8", "uint8", "bool", "boolean", "fp8", "fp8_e4m3"), 1)


class UnknownProgramError(Exception):
    """The text does not read like a program of the version this was learnt from."""


@dataclass(frozen=True)
class Region:
    """A block of memory that tensors lie in; `arena` is what a running engine needs for activations and scratch."""

    size: int
    arena: bool
    host: bool
    constant: bool


@dataclass(frozen=True)
class Tensor:
    """A tensor of a program; a string in `dims` names the scalar that holds the size at run time."""

    type: str
    dims: tuple[Size, ...]
    region: str
    offset: int
    payload: int
    scratch: bool


@dataclass(frozen=True)
class Operation:
    """One record of a body: what it does, the tensors it reads and writes, and all it says about itself."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    layers: tuple[str, ...]
    fields: dict[str, str]


@dataclass(frozen=True)
class Program:
    """One compiled program. `accelerators` are names such as `sm89`; `('*',)` marks the body of a fused kernel."""

    accelerators: tuple[str, ...]
    tf32: bool
    inputs: tuple[str, ...]
    regions: dict[str, Region]
    tensors: dict[str, Tensor]
    body: list[Operation]
    shape_body: list[Operation]

    @property
    def is_fused_kernel(self) -> bool:
        return self.accelerators == ("*",)


@dataclass
class _Block:
    entries: list[tuple[str, str | _Block]] = field(default_factory=list)
    items: list[str] = field(default_factory=list)

    def all(self, key: str) -> list[_Block]:
        return [value for name, value in self.entries if name == key and isinstance(value, _Block)]

    def one(self, key: str) -> _Block:
        found = self.all(key)
        return found[0] if found else _Block()

    def text(self, key: str, default: str = "") -> str:
        return next((value for name, value in self.entries if name == key and isinstance(value, str)), default)


def program_texts(plan: bytes) -> Iterator[str]:
    """The text of every program in a plan, in the order they lie there."""
    start = plan.find(_MARKER)
    while start >= 0:
        head = plan[start + 8 : start + 16]
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        text = plan[start + 16 : start + 16 + length]
        if text.startswith(b"header {") and len(text) == length:
            yield text.decode(errors="replace")
        start = plan.find(_MARKER, start + len(_MARKER))


def parse_program(text: str) -> Program:
    """Read one program.

    Raises:
        UnknownProgramError: the text has another form than that of the version this was learnt from.
    """
    try:
        document = _parse(text)
        header, descriptors = document.one("header"), document.one("descriptors")
        tensors: dict[str, Tensor] = {}
        for record in descriptors.all("tensor") + descriptors.all("sub_tensor"):
            tensors[record.text("name")] = _tensor(record, tensors)
        program = Program(
            accelerators=tuple(header.one("accelerators").items),
            tf32=header.text("tf32") == "1",
            inputs=tuple(header.one("inputs").items),
            regions={record.text("name"): _region(record) for record in header.all("region")},
            tensors=tensors,
            body=_operations(document.one("main")),
            shape_body=_operations(document.one("shape_main")),
        )
        _check(program)
        return program
    except (ValueError, KeyError, IndexError) as error:
        raise UnknownProgramError(f"{type(error).__name__} {error}") from None


def resolve_sizes(program: Program, shapes: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """The value of every size that is free in the program, for given input shapes.

    Args:
        program: a parsed program.
        shapes: shape by name of network input.

    Returns:
        value by scalar name; what cannot be worked out is missing.
    """
    roots = {
        operation.outputs[0]: operation.inputs[0]
        for operation in program.shape_body
        if operation.kind == "copy" and operation.inputs and operation.outputs
    }
    values: dict[str, int] = {}
    for name, shape in shapes.items():
        tensor = program.tensors.get(f"{name}.1")
        for symbol, size in zip(tensor.dims if tensor else (), shape, strict=False):
            while isinstance(symbol, str) and symbol not in values:
                values[symbol] = size
                symbol = roots.get(symbol, size)
    for operation in program.shape_body:
        compute = _ARITHMETIC.get(operation.kind)
        operands = [_value(name, values) for name in operation.inputs]
        if operation.kind == "memset":
            operands = [_value(f"__s^{operation.fields['src']}", values)]
        if compute and None not in operands and operation.outputs:
            values.setdefault(operation.outputs[0], compute(*operands))
    return values


_ARITHMETIC: dict[str, Callable[..., int]] = {
    "copy": lambda value: value,
    "memset": lambda value: value,
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.floordiv,
    "mod": operator.mod,
    "min": min,
    "max": max,
    "gt": lambda a, b: int(a > b),
    "lt": lambda a, b: int(a < b),
    "geq": lambda a, b: int(a >= b),
    "leq": lambda a, b: int(a <= b),
    "eq": lambda a, b: int(a == b),
    "and": lambda a, b: int(bool(a and b)),
    "or": lambda a, b: int(bool(a or b)),
    "select": lambda condition, a, b: a if condition else b,
}


def _value(name: str, values: dict[str, int]) -> int | None:
    literal = _LITERAL.match(name)
    return int(literal[1]) if literal else values.get(name)


def _parse(text: str) -> _Block:
    tokens = _TOKEN.findall(text)
    tokens.append("}")
    position = 0

    def block() -> _Block:
        nonlocal position
        result = _Block()
        while (token := tokens[position]) != "}":
            follower = tokens[position + 1]
            position += 1
            if follower == "=" or (follower == "{" and not token.endswith(":")):
                position += follower == "="
                result.entries.append((token, value()))
            elif token not in "={":
                result.items.append(token.strip('"'))
            else:
                raise UnknownProgramError(f"an unexpected '{token}'")
        position += 1
        return result

    def value() -> str | _Block:
        nonlocal position
        token = tokens[position]
        position += 1
        return block() if token == "{" else token.strip('"')

    document = block()
    if position != len(tokens):
        raise UnknownProgramError("unbalanced braces")
    return document


def _check(program: Program) -> None:
    """What does not hang together must not turn into figures."""
    if not program.accelerators or not program.body:
        raise UnknownProgramError("no accelerators or no body")
    for operation in program.body:
        for name in (*operation.inputs, *operation.outputs):
            if name not in program.tensors and not _LITERAL.match(name):
                raise UnknownProgramError(f"'{operation.name}' names '{name}', which is described nowhere")
    for name, tensor in program.tensors.items():
        if tensor.region and tensor.region not in program.regions:
            raise UnknownProgramError(f"'{name}' lies in '{tensor.region}', which is described nowhere")
        if tensor.type not in TYPE_BYTES:
            raise UnknownProgramError(f"'{name}' has the unknown type '{tensor.type}'")


def _region(record: _Block) -> Region:
    host = record.text("place") == "host"
    return Region(
        size=int(record.text("size")),
        arena=record.text("type") == "user" and not host,
        host=host,
        constant=record.text("constant") == "true" or "-consts" in record.text("name"),
    )


def _tensor(record: _Block, known: dict[str, Tensor]) -> Tensor:
    dims = tuple(int(item) if item.lstrip("-").isdigit() else item for item in record.one("dims").items)
    base = known.get(record.text("base"))
    return Tensor(
        type=record.text("type"),
        dims=dims,
        region=base.region if base else record.text("region"),
        offset=int(record.text("offset", "0")),
        payload=int(record.text("const_payload_size", "0")),
        scratch=record.text("is_scratchspace") == "1",
    )


def _operations(body: _Block) -> list[Operation]:
    operations = []
    for kind, record in body.entries:
        if not isinstance(record, _Block):
            raise UnknownProgramError(f"'{kind}' in the body is no record")
        operations.append(
            Operation(
                kind=kind,
                name=record.text("name"),
                inputs=tuple(record.one("input").items or record.one("input_args").items),
                outputs=tuple(record.one("output").items or record.one("output_args").items),
                layers=tuple(_LAYER.findall(record.text("layers").replace("\x1f", " "))),
                fields={name: value for name, value in record.entries if isinstance(value, str)},
            )
        )
    return operations
