"""`irforge.load`: a deployable and its contract as one callable, frames in and detections out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from types import TracebackType

import numpy as np

from irforge.artifact import read_contract
from irforge.contract import Contract
from irforge.detections import Detections, decode
from irforge.errors import ArtifactError
from irforge.frames import Frame, Geometry, prepare, prepare_batch
from irforge.frames.prepare import Tensor
from irforge.rescoring import eight_bit
from irforge.runtime.backends import choose_backend, open_session
from irforge.runtime.custom_ops import Life
from irforge.runtime.rescoring import SessionRescorer, open_rescorer
from irforge.runtime.sidecar import read_sidecar
from irforge.session import Array, Session, StageTimes, Timings


def load(
    path: str | os.PathLike[str],
    backend: str | None = None,
    threads: int | None = None,
    *,
    threshold: float | None = None,
    with_mask: bool = False,
    trust_engine: bool = False,
    custom_ops: Life = "body",
) -> SessionDetector:
    """Load a deployable on the fastest backend that this machine has for it; `print(detector)` says which one it is.

    Args:
        path: an `.onnx` file, or an engine with its sidecar.
        backend: see `irforge.runtime.backends.BACKENDS`; None chooses.
        threads: CPU threads inside one operator.
        threshold: score threshold, 0..1, instead of the contract's.
        with_mask: have `Detections.mask` filled in, for detectors that give masks.
        trust_engine: load an engine that no sidecar vouches for; engines are code.
        custom_ops: how an `.onnx` file's custom operators run: by their `body`, or natively by a `plugin` library.

    Raises:
        ArtifactError: the file is damaged, has no contract, or its graph does not fit its contract; or a companion that
            the contract names is missing or another file.
        UsageError, EnvironmentFault: see `irforge.runtime.backends.open_session`.
    """
    choose_backend(path, backend)
    name = Path(path).name
    contract = read_sidecar(path).contract if name.endswith(".engine") else read_contract(path)
    with ExitStack() as opened:
        session = open_session(path, backend, threads=threads, trust_engine=trust_engine, custom_ops=custom_ops)
        opened.callback(session.close)
        rescorer = open_rescorer(contract, path, threads)
        if rescorer is not None:
            opened.callback(rescorer.close)
        detector = SessionDetector(session, contract, name, threshold, with_mask, rescorer)
        opened.pop_all()
        return detector


class SessionDetector:
    """A Session behind the Detector protocol. Output arrays are reused from frame to frame: one thread at a time.

    Args:
        session: what runs the graph; closed along with the detector.
        contract: how frames become feeds and outputs become detections.
        name: for messages.
        threshold, with_mask: see `load`.
        rescorer: judges the detections again before the threshold; closed along with the detector.

    Raises:
        ArtifactError: the graph lacks the contract's input or outputs.
    """

    def __init__(
        self,
        session: Session,
        contract: Contract,
        name: str = "model",
        threshold: float | None = None,
        with_mask: bool = False,
        rescorer: SessionRescorer | None = None,
    ) -> None:
        wanted = {tensor.name for tensor in contract.output.tensors}
        if set(session.inputs) != {contract.input.name} or not wanted <= set(session.outputs):
            raise ArtifactError(
                f"'{name}' takes {', '.join(session.inputs)} and returns {', '.join(session.outputs)}; its contract"
                f" says {contract.input.name} and {', '.join(sorted(wanted))}",
                "The contract belongs to another graph; export the model again",
            )
        self.session = session
        self.contract = contract
        self.name = name
        self.threshold = contract.output.score_threshold if threshold is None else threshold
        self.last_times = StageTimes()
        batch = session.inputs[contract.input.name].shape[0]
        # Frames that the graph insists on in each run; 0 where it takes as many as there are.
        self.batch = batch if isinstance(batch, int) else 0
        self._with_mask = with_mask
        self._rescorer = rescorer
        self._shape: tuple[int, ...] = ()
        self._outputs: dict[str, Array] | None = None

    @property
    def last_timings(self) -> Timings | None:
        """What the device's own clock says of the last run; None where it has none."""
        return self.session.last_timings

    def __call__(self, frame: Frame, where: str = "frame") -> Detections:
        """Detect in one raw frame, H x W or H x W x 3 (RGB), of the contract's bit depth.

        Args:
            frame: levels as stored, uint8 or uint16.
            where: what to call the frame in errors: its path, say.

        Raises:
            InputError: the frame is not what the contract asks for; see `irforge.frames.prepare`.
            ArtifactError: the graph fails, or its outputs hold NaN.
        """
        start = perf_counter()
        tensor, geometry = self.prepare(frame, where)
        prepared = perf_counter()
        outputs = self._run(tensor)
        inferred = perf_counter()
        found = self.decode(outputs, geometry, 0)
        decoded = perf_counter()
        found = self.rescored(found, frame, where)
        self.last_times = StageTimes(
            prepared - start, inferred - prepared, decoded - inferred, self.extra(perf_counter() - decoded)
        )
        return found

    def run_batch(self, frames: Sequence[Frame]) -> list[Detections]:
        """Detect in several frames with as few runs as the graph's batch size allows; as many results, in order.

        `last_times` then covers the whole batch.

        Raises:
            InputError: as for one frame, or a dynamic input gives the frames different sizes.
        """
        step = self.batch or max(len(frames), 1)
        found: list[Detections] = []
        prepare_seconds = infer_seconds = decode_seconds = rescore_seconds = 0.0
        for first in range(0, len(frames), step):
            start = perf_counter()
            batch = frames[first : first + step]
            tensor, geometries = prepare_batch(batch, self.contract.input)
            prepared = perf_counter()
            outputs = self._run(tensor)
            inferred = perf_counter()
            raw = [self.decode(outputs, geometry, i) for i, geometry in enumerate(geometries)]
            decoded = perf_counter()
            found += [self.rescored(one, frame, "frame") for one, frame in zip(raw, batch, strict=True)]
            prepare_seconds += prepared - start
            infer_seconds += inferred - prepared
            decode_seconds += decoded - inferred
            rescore_seconds += perf_counter() - decoded
        self.last_times = StageTimes(prepare_seconds, infer_seconds, decode_seconds, self.extra(rescore_seconds))
        return found

    def prepare(self, frame: Frame, where: str = "frame") -> tuple[Tensor, Geometry]:
        """The first of the steps of a call, for who overlaps them: see `irforge.frames.prepare`."""
        return prepare(frame, self.contract.input, where)

    def infer(self, tensor: Array, out: dict[str, Array] | None = None) -> dict[str, Array]:
        """The outputs of `tensor` [n, C, H, W], of at most as many frames as a fixed batch holds, which is filled up.

        Args:
            out: what an earlier run at this shape returned, to be written into.

        Raises:
            InputError, ArtifactError: as a call.
        """
        missing = self.batch - len(tensor)
        if missing > 0:
            tensor = np.concatenate([tensor, np.repeat(tensor[-1:], missing, axis=0)])
        return self.session.run({self.contract.input.name: tensor}, out)

    def decode(self, outputs: Mapping[str, Array], geometry: Geometry, index: int) -> Detections:
        """What row `index` of the outputs says of its frame; where a rescorer judges, from its lower threshold on."""
        level = self.threshold if self._rescorer is None else min(self.threshold, self._rescorer.spec.lower)
        return decode(outputs, self.contract, geometry, index=index, threshold=level, with_mask=self._with_mask)

    def rescored(self, found: Detections, frame: Frame, where: str) -> Detections:
        """What `decode` found, judged again where the contract names something that does."""
        if self._rescorer is None:
            return found
        return self._rescorer.apply(found, eight_bit(frame, self.contract.input, where), self.threshold)

    def extra(self, rescore_seconds: float) -> dict[str, float]:
        """`StageTimes.extra` of the last step."""
        return {} if self._rescorer is None else {"rescore": rescore_seconds}

    def _run(self, tensor: Array) -> dict[str, Array]:
        # The first run at a size allocates; its arrays then take the results of the runs that follow.
        shape = (max(len(tensor), self.batch), *tensor.shape[1:])
        self._outputs = self.infer(tensor, self._outputs if shape == self._shape else None)
        self._shape = shape
        return self._outputs

    def close(self) -> None:
        self.session.close()
        if self._rescorer is not None:
            self._rescorer.close()

    def __enter__(self) -> SessionDetector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        source = self.contract.provenance
        height, width = self.contract.input.size
        size = "dynamic size" if self.contract.input.is_dynamic else f"{width}x{height}"
        again = f", re-scored by {self._rescorer.name}" if self._rescorer else ""
        return (
            f"Detector({self.name}: {source.detector}, {source.precision}, {size}, on {self.session.backend},"
            f" {self.session.device}{', ' * bool(self.session.custom_ops)}{self.session.custom_ops}{again})"
        )
