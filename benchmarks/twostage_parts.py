"""The parts of what the two-stage detectors cost; see `benchmarks/twostage.py`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from benchmarks.twostage_cases import BOXES, CASES, ENCODERS, FRAME, Figures, alone, timed

if TYPE_CHECKING:
    from irforge.train.rescoring.fusion import TorchRescorer


def train_step(name: str, rounds: int, device: str) -> Figures:
    """One frame with four objects, by the losses of the few-shot stage."""
    import torch

    from benchmarks.settled import scene, settled_network, squares
    from irforge.train.detectors.base import BoxBatch
    from irforge.train.detectors.glmd.deploy import GLMD_CA

    case = CASES[name]
    network = settled_network("glmd-ca", case.network, case.size).to(device).train()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, 1e-6, momentum=0.9)
    frame, loss = scene(case.size).to(device), GLMD_CA.loss(**case.loss)
    boxes = torch.tensor([(x0, y0, x1, y1) for y0, x0, y1, x1 in squares(case.size)], dtype=torch.float32)
    truth = BoxBatch([boxes.to(device)], [torch.arange(4, device=device) % 4], {})

    def step() -> None:
        terms = loss(network, frame, truth, 0)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()

    seconds = timed(step, rounds, device)
    return {
        "seconds": seconds,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "trained": sum(parameter.numel() for parameter in trained),
    }


def infer_in_torch(name: str, rounds: int, device: str) -> Figures:
    import torch

    from benchmarks.settled import scene, settled_network
    from irforge.train.detectors.twostage.deploy import detect

    case = CASES[name]
    network, frame = settled_network("glmd-ca", case.network, case.size).to(device), scene(case.size).to(device)
    with torch.no_grad():
        seconds = timed(lambda: detect(network, frame), rounds, device)
        found = int((detect(network, frame)[1] > 0).sum())
    return {"seconds": seconds, "detections": found}


def infer_in_onnxruntime(path: str, rounds: int, threads: int) -> Figures:
    from irforge.artifact import read_contract
    from irforge.export.verify import sample_frames
    from irforge.runtime.detector import load

    size = read_contract(path).input.size
    frame = sample_frames(read_contract(path), *size)[1, 0]
    with load(path, "onnxruntime-cpu", threads=threads) as detector:
        seconds = timed(lambda: detector(frame), rounds)
    return {"seconds": seconds, "file_bytes": Path(path).stat().st_size}


def write_deployable(name: str, path: str) -> Figures:
    """Export, which holds ONNX Runtime to torch on four frames; and how many of the best detections keep their rank."""
    from benchmarks.settled import settled_checkpoint
    from irforge.export.to_onnx import export_checkpoint

    case = CASES[name]
    checkpoint = settled_checkpoint(Path(path).with_suffix(".safetensors"), "glmd-ca", case.network, case.size)
    start = perf_counter()
    summary = export_checkpoint(checkpoint, Path(path))
    return {
        "seconds": perf_counter() - start,
        "parity": summary.parity,
        "nodes": sum(summary.operators.values()),
    } | ranks(checkpoint, path)


def ranks(checkpoint: Path, path: str) -> Figures:
    """Of one frame: the detections in torch, and how many have another place in ONNX Runtime's order."""
    import numpy as np
    import torch

    from irforge.artifact import read_contract
    from irforge.detections import Detections
    from irforge.export.verify import sample_frames
    from irforge.runtime.backends.ort import OrtSession
    from irforge.runtime.pairing import pair_detections
    from irforge.train.checkpoint import load_deployable

    contract = read_contract(path)
    frames = sample_frames(contract, *contract.input.size)[1:2]
    deployable, _ = load_deployable(checkpoint)
    with torch.no_grad():
        expected = [tensor[0].numpy() for tensor in deployable(torch.from_numpy(frames))]
    with OrtSession(path, threads=1) as session:
        outputs = session.run({contract.input.name: frames})
    found = [np.asarray(outputs[tensor.name])[0] for tensor in contract.output.tensors]
    one, other = (Detections(*(part[row[1] > 0] for part in row)) for row in (expected, found))
    pairing = pair_detections(one, other)
    moved = int(np.count_nonzero(pairing.one != pairing.other))
    return {"detections": len(one), "paired": len(pairing.one), "moved_in_rank": moved}


def compiled(path: str) -> Figures:
    """What NVIDIA's compiler makes of a deployable for SM 8.9."""
    from irforge.runtime.engines import compile_gate

    start = perf_counter()
    (proof,) = compile_gate(path, ("8.9",)).proofs
    return {
        "seconds": perf_counter() - start,
        "kernels": proof.kernels,
        "reads": proof.summary,
        "moved_bytes": (proof.bytes_read or 0) + (proof.bytes_written or 0),
        "activation_bytes": proof.peak_bytes,
        "weight_bytes": sum(proof.constant_bytes.values()),
    }


def random_rescorer(encoder: str) -> TorchRescorer:
    """A re-scorer of one class, all of whose boxes it judges, with random weights and table."""
    import torch

    from irforge.rescoring import RescoringSpec
    from irforge.train.rescoring.clip import ClipSizes, VisionTower
    from irforge.train.rescoring.cm_clip import ClipScorer
    from irforge.train.rescoring.encoders import STRIDE, EfficientNetLite0
    from irforge.train.rescoring.fusion import Fusion, TorchRescorer
    from irforge.train.rescoring.pcb import PcbScorer

    torch.manual_seed(0)
    common: dict[str, Any] = {"classes": ["target"], "columns": [0], "alpha": [0.5], "lower": 0.0, "limit": None}
    if encoder == "efficientnet-lite0":
        spec = RescoringSpec(method="pcb", stride=STRIDE, **common)
        return TorchRescorer(spec, PcbScorer(EfficientNetLite0().eval(), Fusion(spec, torch.randn(1, 1000), None)))
    small = ClipSizes(image=224, patch=32, width=768, layers=12, embed=512)
    sizes = small if encoder == "clip-vit-b-32" else ClipSizes()
    spec = RescoringSpec(method="clip", crop_size=sizes.image, **common)
    table = torch.randn(2, sizes.embed)
    return TorchRescorer(spec, ClipScorer(VisionTower(sizes).eval(), Fusion(spec, table, 100.0)))


def write_companion(encoder: str, path: str) -> Figures:
    from irforge.artifact import save_model
    from irforge.export.companion import onnx_from_rescorer

    save_model(path, onnx_from_rescorer(random_rescorer(encoder)))
    return {"file_bytes": Path(path).stat().st_size}


def rescore(path: str, boxes: int, rounds: int, threads: int) -> Figures:
    import numpy as np

    from irforge.export.companion import read_spec
    from irforge.runtime.backends.ort import OrtSession
    from irforge.runtime.rescoring import SessionRescorer

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, FRAME, np.uint8)
    low = rng.uniform(0, 0.8, (boxes, 2)) * FRAME[::-1]
    some = np.concatenate([low, low + rng.uniform(16, 100, (boxes, 2))], axis=1).astype(np.float32)
    scores, classes = np.full(boxes, 0.5, np.float32), np.zeros(boxes, np.int64)
    with SessionRescorer(read_spec(path), OrtSession(path, threads=threads), "companion") as rescorer:
        return {"seconds": timed(lambda: rescorer.rescore(image, some, scores, classes), rounds)}


def count_macs(names: list[str]) -> Figures:
    """Of convolutions and matrix products, by torch's own counter, without any weight in memory.

    Args:
        names: of `CASES`, a frame each, and of `ENCODERS`, a crop each or a frame.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from irforge.train.detectors.registry import find_detector
    from irforge.train.detectors.twostage.deploy import detect

    found: Figures = {}
    for name in names:
        with torch.device("meta"):
            if name in CASES:
                network = find_detector("glmd-ca").build(**CASES[name].network).eval()
                call: Any = detect
                inputs: tuple[Any, ...] = (network, torch.zeros(1, 1, *CASES[name].size))
            else:
                rescorer: Any = random_rescorer(name)
                side = rescorer.spec.crop_size
                whole = side is None
                call = rescorer.module.encoder.features if whole else rescorer.module.visual
                inputs = (torch.zeros(1, 3, *(FRAME if whole else (side, side))),)
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                call(*inputs)
        found[name] = int(counter.get_total_flops()) // 2
    return found


def measure(part: str, names: list[str], encoders: list[str], rounds: int, threads: int, device: str) -> Figures:
    """The figures of one part."""
    from irforge.runtime.machine import environment

    found: Figures = {"environment": environment(threads).model_dump()}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        if part == "macs":
            found |= alone(count_macs, [*CASES, *ENCODERS])
        elif part == "train":
            found |= {name: alone(train_step, name, rounds, device) for name in names}
        elif part == "infer":
            for name in names:
                found[name] = {"torch": alone(infer_in_torch, name, rounds, device)}
                path = str(folder / f"{name}.onnx")
                found[name]["export"] = alone(write_deployable, name, path)
                found[name]["onnxruntime"] = alone(infer_in_onnxruntime, path, rounds, threads)
        elif part == "rescore":
            for encoder in encoders:
                path = str(folder / f"{encoder}.onnx")
                found[encoder] = {"export": alone(write_companion, encoder, path)}
                for boxes in BOXES:
                    found[encoder][str(boxes)] = alone(rescore, path, boxes, rounds, threads)
        else:
            for name in names:
                full, half = folder / f"{name}.onnx", folder / f"{name}.fp16.onnx"
                found[name] = {"export": alone(write_deployable, name, str(full)), "fp32": alone(compiled, str(full))}
                alone(_write_half, str(full), str(half))
                found[name]["fp16"] = alone(compiled, str(half))
    return found


def _write_half(source: str, target: str) -> Figures:
    from irforge.calib.half import half_model

    half_model(Path(source), Path(target))
    return {}
