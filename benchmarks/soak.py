"""Does a long run stay flat? `python benchmarks/soak.py MODEL -o soak.json`: 100,000 synthetic frames by each policy.

Every frame is accounted for: under `lossless` all come out in order, under `latest` those that do not were counted as
dropped. Resident memory is read every hundredth of the run; what grows after its first tenth is growth.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from irforge.errors import CheckFailed, EnvironmentFault, run_command

if TYPE_CHECKING:
    from irforge.runtime.detector import SessionDetector
    from irforge.runtime.pipeline import Policy

ALLOWED_GROWTH = 0.05


def soak(detector: SessionDetector, frames: int, policy: Policy) -> dict[str, Any]:
    """Run a synthetic camera of the model's size through the pipeline; figures of memory, order and counts.

    Under `latest` its frames come as fast as they are made, and the consumer now and then takes a while.

    Raises:
        CheckFailed: a frame out of order, or one that nobody counted.
    """
    from time import sleep

    from irforge.runtime.pipeline import Pipeline
    from irforge.runtime.sources.synthetic import Scene, Synthetic

    height, width = detector.contract.input.size
    live = policy == "latest"
    source = Synthetic(Scene(width=width, height=height, frames=frames, live=live, fps=1e6))
    resident: list[int] = []
    last = -1
    start = perf_counter()
    with Pipeline(detector, [source], policy=policy) as pipeline:
        for result in pipeline:
            number = result.record.index
            if number <= last or (not live and number != last + 1):
                raise CheckFailed(f"frame {number} came after frame {last}")
            if live and pipeline.counts.published % 50 == 0:
                sleep(0.01)
            if number * 100 // frames > last * 100 // frames:
                resident.append(resident_bytes())
            last = number
    counts = pipeline.counts
    if counts.read != frames or counts.published + counts.dropped != frames:
        raise CheckFailed(f"of {frames} frames {counts.published} came out and {counts.dropped} were dropped")
    settled = resident[len(resident) // 10]
    return {
        "policy": policy,
        "frames": frames,
        "published": counts.published,
        "dropped": counts.dropped,
        "resident_bytes": settled,
        "growth": max(resident[len(resident) // 10 :]) / settled - 1,
        "frames_per_second": counts.published / (perf_counter() - start),
    }


def resident_bytes() -> int:
    """Resident memory of this process.

    Raises:
        EnvironmentFault: this system does not say.
    """
    import resource

    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        raise EnvironmentFault("this system has no /proc/self/statm", "Run it on Linux") from None


def main(
    model: Annotated[Path, typer.Argument(help="The deployable; a small one.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write the figures as JSON.")] = None,
    frames: Annotated[int, typer.Option(min=100, help="How many by each policy.")] = 100_000,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the session.")] = 1,
) -> None:
    """Memory, order and counts over a long run."""
    from irforge.files import write_json
    from irforge.runtime.detector import load

    with load(model, threads=threads) as detector:
        figures = [soak(detector, frames, policy) for policy in ("lossless", "latest")]
    for found in figures:
        typer.echo(
            f"{found['policy']}: {found['published']} of {found['frames']} frames, {found['dropped']} dropped,"
            f" {found['frames_per_second']:.0f} frames a second; memory {found['resident_bytes'] / 2**20:.0f} MiB,"
            f" {found['growth']:+.1%}"
        )
    if out is not None:
        write_json(out, figures)
    for found in figures:
        if found["growth"] > ALLOWED_GROWTH:
            raise CheckFailed(f"memory grew by {found['growth']:.1%} under policy {found['policy']}")


if __name__ == "__main__":
    run_command(main)
