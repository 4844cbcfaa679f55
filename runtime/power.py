"""Power, clocks, temperature and memory beside a measurement: a thread looks now and then, and says what that cost."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Protocol

from irforge.errors import EnvironmentFault
from irforge.runtime.backends.device import gpus
from irforge.runtime.jetson import Readout, jetson_probe, number
from irforge.runtime.report.times import Reading, Readings

GPU_MEMORY = ("GPU memory in use", "MB")
GPU_POWER = ("GPU power", "W")
# What says that the clocks are lower than the load asks for: bits of NVML's clock event reasons.
_HELD_BACK = {"by heat": 0x20 | 0x40, "by the power limit": 0x4 | 0x80, "by the hardware": 0x8}


class Probe(Protocol):
    """Something that can be read: `source` says what it is, `power_mode` which of a Jetson's modes is set."""

    source: str
    power_mode: str

    def read(self) -> Readout: ...

    def close(self) -> None: ...


def find_probes(root: Path = Path("/")) -> tuple[list[Probe], str]:
    """All that this machine lets us read, and what it does not, in words."""
    probes: list[Probe] = []
    missing: list[str] = []
    jetson = jetson_probe(root)
    if jetson is not None:
        probes.append(jetson)
    elif gpus():
        try:
            probes.append(NvmlProbe())
        except EnvironmentFault as error:
            missing.append(error.line)
    cpu = CpuProbe(root)
    if cpu.read():
        probes.append(cpu)
    else:
        missing.append("the system shows no processor clock and no power of it")
    return probes, "; ".join(missing)


class NvmlProbe:
    """An NVIDIA GPU by its driver's management library; by default the one that computes, which is the first.

    Raises:
        EnvironmentFault: nvidia-ml-py is not installed, or the driver refuses.
    """

    power_mode = ""

    def __init__(self, nvml: Any = None) -> None:
        self._nvml = nvml or _nvml()
        try:
            self._nvml.nvmlInit()
            self._device = self._first()
            name = self._nvml.nvmlDeviceGetName(self._device)
        except self._nvml.NVMLError as error:
            raise EnvironmentFault(f"NVML does not answer: {error}", "'nvidia-smi' tells more") from None
        self.source = f"NVML, {name.decode() if isinstance(name, bytes) else name}"

    def read(self) -> Readout:
        n, device = self._nvml, self._device
        found: dict[tuple[str, str], float] = {}
        asked: dict[tuple[str, str], Callable[[], float]] = {
            GPU_POWER: lambda: n.nvmlDeviceGetPowerUsage(device) / 1e3,
            ("GPU clock", "MHz"): lambda: n.nvmlDeviceGetClockInfo(device, n.NVML_CLOCK_SM),
            ("memory clock", "MHz"): lambda: n.nvmlDeviceGetClockInfo(device, n.NVML_CLOCK_MEM),
            ("GPU temperature", "°C"): lambda: n.nvmlDeviceGetTemperature(device, n.NVML_TEMPERATURE_GPU),
            ("GPU load", "%"): lambda: n.nvmlDeviceGetUtilizationRates(device).gpu,
            GPU_MEMORY: lambda: n.nvmlDeviceGetMemoryInfo(device).used / 1e6,
        }
        for key, ask in asked.items():
            # Not every board tells everything: a laptop's has no power, say.
            with suppress(n.NVMLError):
                found[key] = float(ask())
        with suppress(n.NVMLError, AttributeError):
            reasons = n.nvmlDeviceGetCurrentClocksThrottleReasons(device)
            found |= {(f"held back {why}", "%"): 100.0 * bool(reasons & bits) for why, bits in _HELD_BACK.items()}
        return found

    def close(self) -> None:
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def _first(self) -> Any:
        # CUDA counts what CUDA_VISIBLE_DEVICES leaves, NVML counts all.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
        if visible.startswith("GPU-"):
            return self._nvml.nvmlDeviceGetHandleByUUID(visible)
        return self._nvml.nvmlDeviceGetHandleByIndex(int(visible) if visible.isdecimal() else 0)


class CpuProbe:
    """The mean clock of the cores that this process may use, and RAPL's power where the system lets us read it."""

    source = "processor"
    power_mode = ""

    def __init__(self, root: Path = Path("/")) -> None:
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        policies = root / "sys/devices/system/cpu"
        self._clocks = [policies / f"cpu{core}/cpufreq/scaling_cur_freq" for core in cores]
        self._energy = root / "sys/class/powercap/intel-rapl:0/energy_uj"
        self._last: tuple[float, float] | None = None

    def read(self) -> Readout:
        found: dict[tuple[str, str], float] = {}
        kilohertz = [clock for path in self._clocks if (clock := number(path)) is not None]
        if kilohertz:
            found["CPU clock", "MHz"] = sum(kilohertz) / len(kilohertz) / 1e3
        energy, now = number(self._energy), perf_counter()
        if energy is not None:
            before, self._last = self._last, (energy, now)
            # The counter wraps: such an interval tells nothing.
            if before is not None and energy >= before[0] and now > before[1]:
                found["CPU package power", "W"] = (energy - before[0]) / 1e6 / (now - before[1])
        return found

    def close(self) -> None:
        return


@dataclass
class Watch:
    """Reads all probes in a thread, from `with` to its end; `readings` then says what there was.

    Args:
        probes: stay open.
        during: what was going on meanwhile, for the record.
        interval: seconds from one look to the next.
    """

    probes: Iterable[Probe]
    during: str
    interval: float
    _rows: dict[int, list[Readout]] = field(default_factory=dict, init=False)
    _costs: dict[int, float] = field(default_factory=dict, init=False)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)

    def __enter__(self) -> Watch:
        self.probes = list(self.probes)
        self._rows = {k: [] for k in range(len(self.probes))}
        self._costs = dict.fromkeys(self._rows, 0.0)
        self._start = perf_counter()
        self._thread = threading.Thread(target=self._run, daemon=True)
        if self.probes:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._seconds = perf_counter() - self._start

    @property
    def readings(self) -> list[Readings]:
        """One for each probe that answered at least once."""
        return [self._summary(k, probe) for k, probe in enumerate(self.probes) if any(self._rows[k])]

    def _run(self) -> None:
        while True:
            for k, probe in enumerate(self.probes):
                start = perf_counter()
                self._rows[k].append(probe.read())
                self._costs[k] += perf_counter() - start
            if self._stop.wait(self.interval):
                return

    def _summary(self, k: int, probe: Probe) -> Readings:
        rows = self._rows[k]
        names = dict.fromkeys(key for row in rows for key in row)
        values = {key: [row[key] for row in rows if key in row] for key in names}
        return Readings(
            source=probe.source,
            during=self.during,
            samples=len(rows),
            interval=self.interval,
            cost_ms=1e3 * self._costs[k] / len(rows),
            cost_share=self._costs[k] / self._seconds if self._seconds else 0.0,
            power_mode=probe.power_mode,
            readings=[
                Reading(name=name, unit=unit, mean=sum(v) / len(v), min=min(v), max=max(v))
                for (name, unit), v in values.items()
            ],
        )


def resident_bytes() -> int | None:
    """Memory that this process holds, in bytes; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def gpu_bytes(probes: Iterable[Probe]) -> int | None:
    """Memory in use on the GPU, by whoever runs there; None where no probe tells."""
    for probe in probes:
        megabytes = probe.read().get(GPU_MEMORY)
        if megabytes is not None:
            return round(megabytes * 1e6)
    return None


def _nvml() -> Any:
    try:
        import pynvml
    except ModuleNotFoundError:
        raise EnvironmentFault(
            "no power, clocks and memory of the GPU without NVML", "pip install nvidia-ml-py, or 'irforge[gpu]'"
        ) from None
    return pynvml
