"""A Jetson's sensors, from a tree of files as its kernel lays them out and from lines that real boards printed."""

from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest

from irforge.runtime.jetson import TegraSensors, Tegrastats, jetson_probe, parse_tegrastats, power_mode

ORIN_NANO = (
    "10-08-2026 04:35:02 RAM 6712/7620MB (lfb 12x4MB) SWAP 369/3810MB (cached 8MB) "
    "CPU [38%@1497,2%@729,1%@729,0%@729,off,off] EMC_FREQ 61%@2133 GR3D_FREQ 99%@[612] NVDEC off NVJPG off VIC off "
    "OFA off APE 200 cpu@57.125C soc2@55.093C soc0@56.625C gpu@58.625C tj@58.312C soc1@55.937C "
    "VDD_IN 16321mW/11204mW VDD_CPU_GPU_CV 7104mW/4944mW VDD_SOC 3120mW/3659mW"
)
AGX_ORIN = (
    "04-11-2025 10:36:27 RAM 4321/62801MB (lfb 1759x4MB) SWAP 19/31400MB (cached 0MB) CPU [0%@729,0%@729] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 0%@[0,0] VIC_FREQ 729 APE 174 CV0@-256C CPU@44.562C Tboard@32C GPU@-256C tj@44.343C "
    "VDD_GPU_SOC 2340mW/2340mW VDD_CPU_CV 390mW/390mW VIN_SYS_5V0 4025mW/4025mW NC 0mW/0mW "
    "VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW"
)
NANO = (
    "RAM 2100/3964MB (lfb 128x4MB) SWAP 0/1982MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [12%@921,off,off,5%@921] "
    "EMC_FREQ 0% GR3D_FREQ 24% PLL@28C CPU@31.5C PMIC@100C GPU@29C AO@36.5C thermal@30.25C "
    "POM_5V_IN 2532/2532 POM_5V_GPU 121/121 POM_5V_CPU 605/605"
)


def put(root: Path, name: str, content: object) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{content}\n")


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """An Orin NX with JetPack 6, under load."""
    rails = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    for channel, name, volts, amperes in (
        (1, "VDD_IN", 19000, 800),
        (2, "VDD_CPU_GPU_CV", 19000, 300),
        (3, "NC", 0, 0),
    ):
        put(tmp_path, f"{rails}/in{channel}_label", name)
        put(tmp_path, f"{rails}/in{channel}_input", volts)
        put(tmp_path, f"{rails}/curr{channel}_input", amperes)
    put(tmp_path, f"{rails}/in7_label", "Sum of shunt voltages")
    put(tmp_path, "sys/class/devfreq/17000000.gpu/cur_freq", 918000000)
    put(tmp_path, "sys/class/devfreq/17000000.gpu/device/load", 873)
    put(tmp_path, "sys/class/thermal/thermal_zone0/type", "cpu-thermal")
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", 51250)
    put(tmp_path, "sys/class/thermal/thermal_zone1/type", "cv0-thermal")
    put(tmp_path, "sys/class/thermal/thermal_zone1/temp", -256000)
    put(tmp_path, "var/lib/nvpmodel/status", "pmode:0002")
    put(tmp_path, "etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=2 NAME=15W >\n")
    return tmp_path


def test_rails_clock_load_heat_and_mode_come_from_the_kernels_files(orin: Path) -> None:
    sensors = jetson_probe(orin)
    assert isinstance(sensors, TegraSensors) and sensors.power_mode == "15W (mode 2)"
    assert sensors.read() == {
        ("VDD_IN", "W"): pytest.approx(15.2),
        ("VDD_CPU_GPU_CV", "W"): pytest.approx(5.7),
        ("GPU clock", "MHz"): 918,
        ("GPU load", "%"): pytest.approx(87.3),
        ("cpu temperature", "°C"): pytest.approx(51.25),
    }


def test_a_sensor_that_falls_asleep_is_left_out_and_the_others_stay(orin: Path) -> None:
    sensors = TegraSensors(orin)
    (orin / "sys/class/devfreq/17000000.gpu/device/load").unlink()
    (orin / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr2_input").write_text("")
    assert set(sensors.read()) == {("VDD_IN", "W"), ("GPU clock", "MHz"), ("cpu temperature", "°C")}


def test_another_machine_is_no_jetson(tmp_path: Path) -> None:
    assert jetson_probe(tmp_path) is None
    assert power_mode(tmp_path) == ""


def test_a_mode_without_a_name_keeps_its_number(orin: Path) -> None:
    (orin / "etc/nvpmodel.conf").unlink()
    assert power_mode(orin) == "mode 2"


def test_a_line_of_an_orin_nano() -> None:
    found = parse_tegrastats(ORIN_NANO)
    assert found["VDD_IN", "W"] == 16.321 and found["VDD_CPU_GPU_CV", "W"] == 7.104
    assert found["GPU load", "%"] == 99 and found["GPU clock", "MHz"] == 612
    assert found["memory load", "%"] == 61 and found["memory clock", "MHz"] == 2133
    assert found["memory in use", "MB"] == 6712
    assert found["CPU clock", "MHz"] == (1497 + 3 * 729) / 4
    assert found["tj temperature", "°C"] == 58.312
    assert not [name for name, _ in found if name in ("RAM", "SWAP")]


def test_a_line_of_an_agx_orin_with_parts_asleep() -> None:
    found = parse_tegrastats(AGX_ORIN)
    watts = {name: value for (name, unit), value in found.items() if unit == "W"}
    assert watts == {"VDD_GPU_SOC": 2.34, "VDD_CPU_CV": 0.39, "VIN_SYS_5V0": 4.025, "VDDQ_VDD2_1V8AO": 0.301}
    assert ("GPU temperature", "°C") not in found and ("CV0 temperature", "°C") not in found
    assert found["CPU temperature", "°C"] == 44.562 and found["GPU clock", "MHz"] == 0


def test_an_older_line_has_no_units_and_no_clock_of_the_gpu() -> None:
    found = parse_tegrastats(NANO)
    assert found["POM_5V_IN", "W"] == 2.532 and found["POM_5V_GPU", "W"] == 0.121
    assert found["GPU load", "%"] == 24 and ("GPU clock", "MHz") not in found
    assert not [name for name, _ in found if "RAM" in name]


@pytest.mark.parametrize("line", ["", "tegrastats: permission denied", "RAM / CPU [] GR3D_FREQ"])
def test_a_line_that_says_nothing_reads_as_nothing(line: str) -> None:
    assert parse_tegrastats(line) == {}


def test_the_program_is_followed_and_ended(tmp_path: Path) -> None:
    program = tmp_path / "tegrastats"
    program.write_text(f"#!/bin/sh\n[ \"$1\" = --interval ] || exit 1\necho '{ORIN_NANO}'\nexec sleep 60\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    probe = Tegrastats(str(program))
    deadline = time.monotonic() + 20
    while not probe.read() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert probe.read()["VDD_IN", "W"] == 16.321
    process = probe._process
    probe.close()
    assert process.poll() is not None
