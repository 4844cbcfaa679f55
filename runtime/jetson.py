"""A Jetson's power, clocks and temperatures: NVML has none there, its own sensors and `tegrastats` do.

Rails, files and the fields of a line are as the Jetson Linux Developer Guide has them ("Platform Power and
Performance" and "tegrastats Utility").
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

Readout = Mapping[tuple[str, str], float]
"""Value by (name, unit)."""

_RAILS = "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in[123]_label"
_GPUS = ("*.gpu", "*.ga10b", "*.gv11b", "*.gp10b", "gpu-gpc-*")
_MODE = re.compile(r"POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>")
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]*) (\d+)(?:mW)?/(\d+)(?:mW)?(?= |$)")
_HEAT = re.compile(r"\b([A-Za-z][\w-]*)@(-?\d+(?:\.\d+)?)C\b")
_RAM = re.compile(r"\bRAM (\d+)/\d+MB")
_LOAD = re.compile(r"\b(GR3D_FREQ|EMC_FREQ) (\d+)%(?:@\[?(\d+))?")
_CORES = re.compile(r"\bCPU \[([^\]]*)\]")
# A part that is asleep reads so.
_ASLEEP = -200.0


def jetson_probe(root: Path = Path("/")) -> TegraSensors | Tegrastats | None:
    """What reads this Jetson, its sensors where they are exposed; None on any other machine."""
    sensors = TegraSensors(root)
    if sensors.rails:
        return sensors
    program = shutil.which("tegrastats") if root == Path("/") else None
    return Tegrastats(program) if program else None


class TegraSensors:
    """The INA3221 power monitors' rails, the GPU's clock and load, and the thermal zones, from sysfs."""

    source = "Jetson, INA3221"

    def __init__(self, root: Path = Path("/")) -> None:
        self.rails = {}
        for label in sorted(root.glob(_RAILS)):
            name, channel = _text(label), label.name[2]
            if name and name != "NC":
                self.rails[name] = (label.with_name(f"in{channel}_input"), label.with_name(f"curr{channel}_input"))
        devices = root / "sys/class/devfreq"
        self._gpu = next((path for pattern in _GPUS for path in sorted(devices.glob(pattern))), None)
        zones = sorted(root.glob("sys/class/thermal/thermal_zone*"))
        self._zones = [(_text(zone / "type").removesuffix("-thermal").removesuffix("-therm"), zone) for zone in zones]
        self.power_mode = power_mode(root)

    def read(self) -> Readout:
        found: dict[tuple[str, str], float] = {}
        for name, (volts, amperes) in self.rails.items():
            millivolts, milliamperes = number(volts), number(amperes)
            if millivolts is not None and milliamperes is not None:
                found[name, "W"] = millivolts * milliamperes / 1e6
        if self._gpu is not None:
            hertz, load = number(self._gpu / "cur_freq"), number(self._gpu / "device/load")
            if hertz is not None:
                found["GPU clock", "MHz"] = hertz / 1e6
            if load is not None:
                found["GPU load", "%"] = load / 10
        for name, zone in self._zones:
            heat = number(zone / "temp")
            if name and heat is not None and heat / 1e3 > _ASLEEP:
                found[f"{name} temperature", "°C"] = heat / 1e3
        return found

    def close(self) -> None:
        return


class Tegrastats:
    """The newest line of a `tegrastats` that runs beside the measurement, for boards whose sensors are not exposed."""

    source = "Jetson, tegrastats"

    def __init__(self, program: str, interval: float = 0.5) -> None:
        self.power_mode = power_mode()
        self._line = ""
        command = [program, "--interval", str(round(1e3 * interval))]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def read(self) -> Readout:
        return parse_tegrastats(self._line)

    def close(self) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._thread.join(5)

    def _follow(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._line = line


def parse_tegrastats(line: str) -> Readout:
    """What one line of `tegrastats` says; what it does not say is left out.

    Powers are those of the moment, the first of a rail's two figures; the second is its mean since the tool started.
    """
    found: dict[tuple[str, str], float] = {}
    memory = _RAM.search(line)
    if memory:
        found["memory in use", "MB"] = float(memory[1])
    cores = _CORES.search(line)
    clocks = [float(core.partition("@")[2]) for core in cores[1].split(",") if "@" in core] if cores else []
    if clocks:
        found["CPU clock", "MHz"] = sum(clocks) / len(clocks)
    for part, load, clock in _LOAD.findall(line):
        name = "GPU" if part == "GR3D_FREQ" else "memory"
        found[f"{name} load", "%"] = float(load)
        if clock:
            found[f"{name} clock", "MHz"] = float(clock)
    for name, heat in _HEAT.findall(line):
        if float(heat) > _ASLEEP:
            found[f"{name} temperature", "°C"] = float(heat)
    for name, now, _mean in _RAIL.findall(line):
        if name not in ("NC", "RAM", "SWAP", "IRAM"):
            found[name, "W"] = float(now) / 1e3
    return found


def power_mode(root: Path = Path("/")) -> str:
    """The mode that `nvpmodel` set, such as 'MAXN (mode 0)'; '' where it cannot be told."""
    mode = _text(root / "var/lib/nvpmodel/status").rpartition(":")[2]
    if not mode.isdecimal():
        return ""
    names = {int(number): name for number, name in _MODE.findall(_text(root / "etc/nvpmodel.conf"))}
    name = names.get(int(mode))
    return f"{name} (mode {int(mode)})" if name else f"mode {int(mode)}"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def number(path: Path) -> float | None:
    """A file's single number; None where it cannot be read now: a sensor whose part is asleep answers with an error."""
    try:
        return float(_text(path))
    except ValueError:
        return None
