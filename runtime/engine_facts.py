"""The engines that were built from a model, and what their sidecars prove."""

from __future__ import annotations

from pathlib import Path

from irforge.files import sha256_of_file
from irforge.runtime.proof import PrecisionProof
from irforge.runtime.report.schema import EngineFacts
from irforge.runtime.sidecar import EngineRecord, Sidecar, read_sidecar

_ENGINE, _SIDECAR = ".engine", ".engine.json"


def engine_facts(model: Path) -> list[EngineFacts]:
    """What is known of a model's engines: of the engine itself, or of those beside an `.onnx` file.

    An engine belongs to an `.onnx` file by content: one built from an older file of the same name is not its engine.

    Raises:
        ArtifactError: a sidecar is damaged.
    """
    if model.name.endswith(_ENGINE):
        return _facts(read_sidecar(model))
    digest = sha256_of_file(model)
    beside = sorted(model.parent.glob(f"*{_SIDECAR}"))
    sidecars = [read_sidecar(path.with_suffix("")) for path in beside if path.with_suffix("").is_file()]
    return [facts for sidecar in sidecars if sidecar.onnx.sha256 == digest for facts in _facts(sidecar)]


def _facts(sidecar: Sidecar) -> list[EngineFacts]:
    skipped = [f"SM {target} was skipped: {reason}" for target, reason in sidecar.skipped_targets.items()]
    unknown = [f"the plan could not be read: {sidecar.proof_unavailable}"] if sidecar.proof_unavailable else []
    notes = [*unknown, *sidecar.notes, *skipped, *map(_of_companion, sidecar.companions)]
    if sidecar.proofs:
        return [_proven(sidecar, proof, notes) for proof in sidecar.proofs]
    return [
        EngineFacts(
            file=sidecar.engine,
            file_bytes=sidecar.engine_bytes,
            runtime=sidecar.runtime,
            targets=sidecar.compute_capabilities,
            notes=notes,
        )
    ]


def _of_companion(engine: EngineRecord) -> str:
    words = f"with it goes {engine.engine}, {engine.engine_bytes / 1e6:.1f} MB, which re-scores its boxes"
    if not engine.proofs:
        return words
    proof, most = engine.proofs[-1], engine.profile["scores"][1][0]
    peak = f"{proof.peak_bytes / 1e6:.1f} MB" if proof.peak_bytes is not None else "unknown"
    return f"{words}: {proof.kernels} kernels, peak memory {peak}, for {most} boxes"


def _proven(sidecar: Sidecar, proof: PrecisionProof, notes: list[str]) -> EngineFacts:
    known = proof.bytes_read is not None and proof.bytes_written is not None
    return EngineFacts(
        file=sidecar.engine,
        file_bytes=sidecar.engine_bytes,
        runtime=sidecar.runtime,
        targets=proof.compute_capabilities,
        kernels=proof.kernels,
        int8_share=proof.share("int8"),
        fp16_share=proof.share("fp16"),
        reads=proof.summary,
        writes=proof.writes_summary,
        bytes_moved=(proof.bytes_read or 0) + (proof.bytes_written or 0) if known else None,
        peak_bytes=proof.peak_bytes,
        weight_bytes=proof.constant_bytes,
        macs=proof.macs_read,
        tf32=proof.tf32,
        notes=notes,
    )
