"""A report with chosen figures, and a reader of its page."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from irforge.runtime.clocks import distribution
from irforge.runtime.findings import findings
from irforge.runtime.machine import environment
from irforge.runtime.report.figures import (
    MASK_SIZES,
    Check,
    Crop,
    MaskAccuracy,
    MaskParity,
    OutputDifference,
    SizeCount,
    TargetChange,
)
from irforge.runtime.report.schema import Data, EngineFacts, Latency, Model, Report

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="


def latency(milliseconds: float) -> Latency:
    def times(share: float) -> Any:
        return distribution([milliseconds * share * (1 + i / 100) / 1e3 for i in range(20)])

    return Latency(
        gpu=None,
        gpu_note="no GPU computed",
        host=times(0.9),
        frame=times(1.0),
        prepare=times(0.06),
        decode=times(0.04),
        threads=1,
        rounds=4,
        frames_per_round=5,
        warm_up=1,
    )


def accuracy(iou: float = 0.74) -> MaskAccuracy:
    return MaskAccuracy(
        frames=20,
        targets=300,
        found=280,
        iou=iou,
        niou=0.75,
        pd=280 / 300,
        pd_interval=(0.9, 0.96),
        fa=1e-5,
        false_pixels_per_100_frames=65.5,
    )


def parity(more: float = 0.0, changes: tuple[TargetChange, ...] = ()) -> MaskParity:
    return MaskParity(
        reference="net.onnx",
        frames=20,
        targets=300,
        outputs=[
            OutputDifference(
                name="mask", max_abs=3e-3, mean_abs=1e-6, flipped_pixels=12, flipped_share=1e-5, not_finite=0
            )
        ],
        iou_points=-0.42,
        niou_points=0.02,
        pd_points=-0.33,
        false_pixels_per_100_frames=more,
        by_size=[SizeCount(size_class=name, targets=100, lost=0, gained=0) for name in MASK_SIZES],
        changes=list(changes),
        checks=[
            Check(name="more false pixels", value=more, limit=20, unit="per 100 frames", passed=more <= 20),
        ],
    )


def change(crop: bool = True) -> TargetChange:
    pictures = Crop(frame=PIXEL, truth=PIXEL, reference=PIXEL, candidate=PIXEL) if crop else None
    return TargetChange(
        kind="lost",
        frame="000123",
        row=30.5,
        column=41.0,
        area=7,
        size_class="up to 9 px",
        reference_peak=0.61,
        candidate_peak=0.47,
        crop=pictures,
    )


def engine(moved: int) -> EngineFacts:
    return EngineFacts(
        file="net.rtx.engine",
        file_bytes=9_000_000,
        runtime="TensorRT-RTX",
        targets=["8.0", "8.6", "8.9", "12.0"],
        kernels=150,
        int8_share=0.962,
        fp16_share=0.038,
        reads="int8 99.6 %, fp16 0.4 %",
        writes="int8 96.2 %, fp16 3.8 %",
        bytes_moved=moved,
        peak_bytes=29_000_000,
        weight_bytes={"int8": 4_000_000},
    )


def model(name: str, precision: str, milliseconds: float, **fields: Any) -> Model:
    values: dict[str, Any] = {
        "role": "candidate",
        "backend": "onnxruntime",
        "device": "cpu",
        "height": 256,
        "width": 256,
        "sha256": "ab" * 32,
        "file_bytes": 16_000_000,
        "protocol": "squash",
        "threshold": 0.5,
        "accuracy": accuracy(),
        "parity": None,
        "latency": latency(milliseconds),
        "contract": {"provenance": {"detector": "net", "trained_on": []}},
    }
    return Model(name=name, precision=precision, **values | fields)


def make(*models: Model, **fields: Any) -> Report:
    here, data = (
        environment(1).model_copy(update={"load_average": (0.1, 0.1, 0.1), "gpu": "none"}),
        Data(name="SET", split="test", frames=20, frames_in_split=20, targets=300, licence="CC0"),
    )
    return Report(
        irforge_version="1.2.3",
        command="irforge bench net.onnx net.int8.onnx",
        detector="net",
        data=data,
        environment=here,
        models=list(models),
        findings=findings(models, data, here),
        seconds=12,
        **fields,
    )


def example_report() -> Report:
    """FP32 and an INT8 that differs from it."""
    return make(
        model("net.onnx", "fp32", 110, engines=[engine(210_000_000)]),
        model(
            "net.int8.onnx", "int8", 170, parity=parity(240.0, (change(), change(False))), engines=[engine(66_000_000)]
        ),
    )


class Reader(HTMLParser):
    """Checks that tags nest, and collects the text and what the page would load."""

    VOID = ("meta", "img", "rect")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)
        assert not self.open
        self.words = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "action")]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.text.append(data)
