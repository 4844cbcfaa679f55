"""Promises of what is read beside a measurement, and of what reading costs."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from irforge.errors import EnvironmentFault
from irforge.runtime import power
from irforge.runtime.power import GPU_MEMORY, GPU_POWER, CpuProbe, NvmlProbe, Watch, find_probes, gpu_bytes


class FakeNvml:
    """The calls of nvidia-ml-py that are used, for a board that tells everything but its power."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        pass

    def __init__(self, reasons: int = 0, fail: bool = False) -> None:
        self.reasons, self.fail, self.handles, self.ended = reasons, fail, [], False

    def nvmlInit(self) -> None:  # noqa: N802
        if self.fail:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.ended = True

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        self.handles.append(index)
        return "gpu"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        self.handles.append(uuid)
        return "gpu"

    def nvmlDeviceGetName(self, _: str) -> bytes:  # noqa: N802
        return b"NVIDIA L4"

    def nvmlDeviceGetPowerUsage(self, _: str) -> int:  # noqa: N802
        raise self.NVMLError("Not Supported")

    def nvmlDeviceGetClockInfo(self, _: str, which: int) -> int:  # noqa: N802
        return {1: 2040, 2: 6251}[which]

    def nvmlDeviceGetTemperature(self, _: str, which: int) -> int:  # noqa: N802
        return 61

    def nvmlDeviceGetUtilizationRates(self, _: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=97)

    def nvmlDeviceGetMemoryInfo(self, _: str) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=1_500_000_000)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _: str) -> int:  # noqa: N802
        return self.reasons


class Steady:
    """Reads one value, after a while."""

    source, power_mode = "steady", ""

    def __init__(self, *values: float, seconds: float = 0.0) -> None:
        self.values, self.seconds = list(values), seconds

    def read(self) -> dict[tuple[str, str], float]:
        time.sleep(self.seconds)
        return {("power", "W"): self.values.pop(0) if len(self.values) > 1 else self.values[0]}

    def close(self) -> None:
        return


def test_a_gpu_tells_what_it_can_and_the_rest_is_left_out() -> None:
    nvml = FakeNvml(reasons=0x40 | 0x4)
    probe = NvmlProbe(nvml)
    found = probe.read()
    assert probe.source == "NVML, NVIDIA L4"
    assert found["GPU clock", "MHz"] == 2040 and found["memory clock", "MHz"] == 6251
    assert GPU_POWER not in found and found[GPU_MEMORY] == 1500
    assert (found["held back by heat", "%"], found["held back by the power limit", "%"]) == (100, 100)
    assert found["held back by the hardware", "%"] == 0
    assert gpu_bytes([Steady(1.0), probe]) == 1_500_000_000 and gpu_bytes([]) is None
    probe.close()
    assert nvml.ended


@pytest.mark.parametrize(("visible", "handle"), [("", 0), ("3,1", 3), ("GPU-8f6d", "GPU-8f6d")])
def test_the_gpu_is_the_one_that_cuda_computes_on(monkeypatch, visible: str, handle: object) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = FakeNvml()
    NvmlProbe(nvml)
    assert nvml.handles == [handle]


def test_a_driver_that_refuses_is_one_line() -> None:
    with pytest.raises(EnvironmentFault, match="NVML does not answer: Driver Not Loaded"):
        NvmlProbe(FakeNvml(fail=True))


def test_a_missing_package_is_said_and_nothing_fails(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    monkeypatch.setattr(power, "gpus", lambda: ("a GPU",))
    probes, missing = find_probes(tmp_path)
    assert probes == [] and "nvidia-ml-py" in missing and "no processor clock" in missing


def test_a_processors_clock_and_power_come_from_its_files(tmp_path: Path) -> None:
    cores = tmp_path / "sys/devices/system/cpu"
    import os

    for core in os.sched_getaffinity(0):
        (cores / f"cpu{core}/cpufreq").mkdir(parents=True)
        (cores / f"cpu{core}/cpufreq/scaling_cur_freq").write_text("2400000\n")
    energy = tmp_path / "sys/class/powercap/intel-rapl:0/energy_uj"
    energy.parent.mkdir(parents=True)
    energy.write_text("1000000\n")
    probe = CpuProbe(tmp_path)
    assert probe.read() == {("CPU clock", "MHz"): 2400}
    time.sleep(0.05)
    energy.write_text("2000000\n")
    watts = probe.read()["CPU package power", "W"]
    assert 0 < watts <= 1 / 0.05
    energy.write_text("5\n")
    assert ("CPU package power", "W") not in probe.read(), "the counter wrapped"


def test_a_watch_keeps_extremes_and_says_what_looking_cost() -> None:
    with Watch([Steady(10.0, 40.0, 10.0, seconds=0.01)], "a test", 0.02) as watch:
        time.sleep(0.2)
    (found,) = watch.readings
    (reading,) = found.readings
    assert (reading.name, reading.unit, reading.min, reading.max) == ("power", "W", 10, 40)
    assert found.samples >= 3 and 10 < reading.mean < 40
    assert found.during == "a test" and found.cost_ms >= 10
    assert 0.05 < found.cost_share <= 1


def test_a_watch_looks_at_least_once_however_short_the_work() -> None:
    with Watch([Steady(5.0)], "a test", 60.0) as watch:
        pass
    assert [reading.mean for found in watch.readings for reading in found.readings] == [5]


def test_a_watch_without_probes_reads_nothing() -> None:
    with Watch([], "a test", 0.01) as watch:
        pass
    assert watch.readings == []
