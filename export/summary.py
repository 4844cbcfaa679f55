"""What was exported, as a dictionary for machines and a table for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from onnx import ModelProto
from rich.console import Console
from rich.table import Table

from irforge.contract import Contract
from irforge.export.convert import input_size
from irforge.graph import Graph, macs


@dataclass(frozen=True)
class Summary:
    """Figures of an exported model.

    `parameters` are the network's; the file may store some twice. `macs` are of one frame at the size that engines are
    tuned for.
    """

    inputs: dict[str, str]
    outputs: dict[str, str]
    operators: dict[str, int]
    rewrites: dict[str, int]
    opset: int
    ir_version: int
    size_bytes: int
    parameters: int
    macs: int
    parity: dict[str, float]


def summarize(
    model: ModelProto,
    contract: Contract,
    parameters: int,
    rewrites: Mapping[str, int],
    parity: Mapping[str, float],
) -> Summary:
    graph = Graph(model)
    spec = contract.input
    shape = (1, spec.channels, *spec.size)
    return Summary(
        inputs={spec.name: f"{spec.door} N x {spec.channels} x {input_size(spec)}"},
        outputs={t.name: f"{t.dtype} {' x '.join(map(str, t.shape))}" for t in contract.output.tensors},
        operators=dict(Counter(node.op_type for node in graph.nodes).most_common()),
        rewrites={name: count for name, count in rewrites.items() if count},
        opset=graph.opset,
        ir_version=model.ir_version,
        size_bytes=model.ByteSize(),
        parameters=parameters,
        macs=sum(macs(model, {spec.name: shape}).values()),
        parity=dict(parity),
    )


def print_summary(summary: Summary, title: str, console: Console | None = None) -> None:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows = {
        "inputs": "\n".join(f"{name}: {what}" for name, what in summary.inputs.items()),
        "outputs": "\n".join(f"{name}: {what}" for name, what in summary.outputs.items()),
        "operators": f"{sum(summary.operators.values())}: "
        + ", ".join(f"{count} {kind}" for kind, count in summary.operators.items()),
        "rewrites": ", ".join(f"{name} {count}" for name, count in summary.rewrites.items()) or "none",
        "opset, IR": f"{summary.opset}, {summary.ir_version}",
        "file": f"{summary.size_bytes / 1e6:.1f} MB",
        "parameters": f"{summary.parameters:,}",
        "MACs a frame": f"{summary.macs / 1e9:.3f} G",
        "parity with torch": ", ".join(f"{name}: max |d| {value:.1e}" for name, value in summary.parity.items()),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    (console or Console()).print(table)
