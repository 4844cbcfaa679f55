"""GPU generations by compute capability, and which compiler builds for which of them."""

from __future__ import annotations

from irforge.errors import UsageError

# What TensorRT-RTX compiles for ahead of time; the first five by default.
RTX_TARGETS = {
    "7.5": "Turing: T4, RTX 20, GTX 16",
    "8.0": "Ampere: A100, A30",
    "8.6": "Ampere: RTX 30, A10, A40",
    "8.9": "Ada: RTX 40, L4, L40",
    "12.0": "Blackwell: RTX 50, RTX PRO",
    "12.1": "Blackwell: DGX Spark",
}
DEFAULT_TARGETS = ("7.5", "8.0", "8.6", "8.9", "12.0")
_ON_THE_DEVICE = {"8.7": "Jetson Orin", "11.0": "Jetson Thor", "9.0": "Hopper", "10.0": "data-centre Blackwell"}


def parse_targets(text: str) -> tuple[str, ...]:
    """`7.5,8.9` or `sm75,sm_89` -> ('7.5', '8.9'), in ascending order and without repetition.

    Raises:
        UsageError: a compute capability that TensorRT-RTX does not compile for ahead of time.
    """
    targets = {_normalise(part) for part in text.split(",") if part.strip()}
    if not targets:
        raise UsageError("--sm names no compute capability", f"Known ones: {known_targets()}")
    for target in targets:
        if target in _ON_THE_DEVICE:
            raise UsageError(
                f"SM {target} ({_ON_THE_DEVICE[target]}) is not among the targets of TensorRT-RTX",
                "Build with TensorRT on that device itself: irforge build MODEL.onnx -o MODEL.engine",
            )
        if target not in RTX_TARGETS:
            raise UsageError(f"SM {target} is unknown", f"Known ones: {known_targets()}")
    return tuple(sorted(targets, key=float))


def without_rtx(capability: str) -> str:
    """The GPU generation, where TensorRT-RTX loads no plan; '' elsewhere. Seen on an H100, where it names what it runs
    on: 8.0, 8.6, 8.9, 12.0 and later."""
    return _ON_THE_DEVICE.get(capability, "")


def known_targets() -> str:
    """All targets in one line."""
    return "; ".join(f"{target} ({boards})" for target, boards in RTX_TARGETS.items())


def enum_name(target: str) -> str:
    """The name that TensorRT-RTX has for a target: '8.9' -> 'SM89'."""
    return "SM" + target.replace(".", "")


def _normalise(part: str) -> str:
    text = part.strip().lower().removeprefix("sm").lstrip("_")
    return f"{text[:-1]}.{text[-1]}" if text.isdigit() and len(text) > 1 else text
