"""What an engine really computes in: the figures that the plan reader and the engine inspector both give."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from irforge.errors import CheckFailed, UsageError

PRECISIONS = ("int8", "fp16", "bf16", "fp32")
_READ = ":read"


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class ConvolutionGroup(_Part):
    """All convolutions, and matrix products with weights, that read, hold weights in, and write the same types;
    `macs` a frame batch."""

    reads: str
    weights: str
    writes: str
    count: int = Field(ge=0)
    macs: int = Field(ge=0)


class PrecisionProof(_Part):
    """One compiled program for one group of GPUs, at one set of input shapes.

    `bytes_read` and `bytes_written` count every tensor that a kernel names once, as if it came from memory: a bound
    that caches can only improve. `peak_bytes` is the memory an execution holds for activations and scratch.
    """

    source: Literal["plan text", "engine inspector"]
    tool: str
    compute_capabilities: list[str]
    shapes: dict[str, list[int]]
    tf32: bool | None = None
    kernels: int
    convolutions: list[ConvolutionGroup]
    constant_bytes: dict[str, int]
    bytes_read: int | None
    bytes_written: int | None
    peak_bytes: int | None
    scratch_bytes: int | None = None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all layers with weights."""
        return sum(group.macs for group in self.convolutions)

    def share(self, precision: str, *, writes: bool = True) -> float:
        """Share (0..1) of these layers' MACs that read `precision` and, with `writes`, also write it."""
        if not self.macs:
            return 0.0
        wanted = [g for g in self.convolutions if g.reads == precision and (not writes or g.writes == precision)]
        return sum(group.macs for group in wanted) / self.macs

    @property
    def summary(self) -> str:
        """For example 'int8 96 %, fp16 4 %': the layers' MACs by the type that they read."""
        return self._by_type("reads")

    @property
    def writes_summary(self) -> str:
        """The same by the type that they write."""
        return self._by_type("writes")

    @property
    def macs_read(self) -> dict[str, int]:
        """MACs by the type that is read."""
        return self._macs_by("reads")

    def _macs_by(self, side: Literal["reads", "writes"]) -> dict[str, int]:
        macs: dict[str, int] = {}
        for group in self.convolutions:
            macs[getattr(group, side)] = macs.get(getattr(group, side), 0) + group.macs
        return macs

    def _by_type(self, side: Literal["reads", "writes"]) -> str:
        macs = self._macs_by(side)
        shares = {name: f"{name} {100 * part / self.macs:.1f} %" for name, part in macs.items() if self.macs}
        return ", ".join(shares[name] for name in sorted(shares, key=lambda name: -macs[name])) or "no convolutions"


def parse_requirement(text: str) -> dict[str, float]:
    """`int8=0.9,fp16:read=1` -> least share of convolution MACs by precision, read and written or only read.

    Raises:
        UsageError: not of that form.
    """
    wanted = {}
    for part in filter(None, text.split(",")):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            share = float(value)
        except ValueError:
            share = -1.0
        if name.removesuffix(_READ) not in PRECISIONS or not 0 <= share <= 1:
            known = ", ".join(PRECISIONS)
            raise UsageError(f"'{part}' is no requirement", f"Write int8=0.9 or int8{_READ}=0.9; precisions: {known}")
        wanted[name] = share
    return wanted


def check_requirement(proofs: list[PrecisionProof], wanted: dict[str, float], engine: str) -> None:
    """Hold every program of an engine to the asked shares of convolution MACs.

    Raises:
        CheckFailed: a share is lower, or nothing is known about the engine.
    """
    if wanted and not proofs:
        raise CheckFailed(f"nothing proves the precision of '{engine}'", "Leave --require away to build it unproven")
    for proof in proofs:
        for name, least in wanted.items():
            precision, read_only = name.removesuffix(_READ), name.endswith(_READ)
            share = proof.share(precision, writes=not read_only)
            if share < least:
                does = "read" if read_only else "read and write"
                raise CheckFailed(
                    f"in '{engine}' for SM {', '.join(proof.compute_capabilities)} {100 * share:.1f} % of the "
                    f"convolution MACs {does} {precision}, {100 * least:.1f} % were asked for",
                    f"They read {proof.summary} and write {proof.writes_summary}",
                )
