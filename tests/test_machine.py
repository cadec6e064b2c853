"""What the course believes about a computer, on computers that are not here."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from course_utils import machine
from course_utils.errors import CourseError, OutputError

X86_BASE = "fpu vme de pse tsc msr sse4_1 sse4_2 fma avx f16c"
SAPPHIRE_FLAGS = (
    f"{X86_BASE} avx2 avx512f avx512dq avx_vnni avx512_bf16 avx512_vnni amx_bf16 amx_tile amx_int8"
)
ZEN5_FLAGS = f"{X86_BASE} avx2 avx512f avx512dq avx_vnni avx512_bf16 avx512_vnni"
HASWELL_FLAGS = f"{X86_BASE} avx2 bmi1"


def x86(name: str, flags: str, *, cores: int, threads_per_core: int = 1) -> str:
    """A /proc/cpuinfo in which, as on most machines, the second threads follow the first ones."""
    blocks = [
        f"processor\t: {number}\nvendor_id\t: any\nmodel\t\t: 143\nmodel name\t: {name}\n"
        f"physical id\t: 0\ncore id\t\t: {number % cores}\nflags\t\t: {flags}\n"
        for number in range(cores * threads_per_core)
    ]
    return "\n".join(blocks) + "\n"


INTEL_AMX = x86("Intel(R) Xeon(R) Platinum 8481C", SAPPHIRE_FLAGS, cores=4, threads_per_core=2)
AMD_ZEN5 = x86("AMD EPYC 9755", ZEN5_FLAGS, cores=2)
OLD_AVX2 = x86("Intel(R) Core(TM) i5-4590", HASWELL_FLAGS, cores=4)
ARM_BLOCK = (
    "processor\t: {}\nBogoMIPS\t: 2100.00\n"
    "Features\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp asimddp sve i8mm bf16 dgh rng\n"
    "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd40\nCPU revision\t: 1\n"
)
ARM = "\n".join(ARM_BLOCK.format(number) for number in range(4))
OLD_ARM = ARM.replace(" i8mm bf16", "").replace("0xd40", "0xd0c")

MAC_M2 = """machdep.cpu.cores_per_package: 8
machdep.cpu.brand_string: Apple M2
hw.optional.floatingpoint: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_I8MM: 1
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_SME: 0
"""
MAC_INTEL = """machdep.cpu.brand_string: Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz
machdep.cpu.features: FPU VME SSE4.2 AVX1.0
machdep.cpu.leaf7_features: RDWRFSGS BMI1 AVX2 SMEP
hw.optional.avx2_0: 1
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No test sees the machine another one made up, nor this machine's settings or accelerator."""
    for name in ("COURSE_PROFILE", "COURSE_CACHE", "COLAB_RELEASE_TAG", "COLAB_GPU"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    machine._describe.cache_clear()
    yield
    machine._describe.cache_clear()


@pytest.fixture
def linux(monkeypatch):
    """Makes this process believe in a /proc/cpuinfo, and in nothing else of /proc and /sys."""

    def pretend(cpuinfo: str, *, affinity: list[int] | None = None) -> machine.Machine:
        count = cpuinfo.count("processor")
        allowed = list(range(count)) if affinity is None else affinity
        monkeypatch.setattr(
            machine, "_read", lambda path: cpuinfo if path == Path("/proc/cpuinfo") else ""
        )
        monkeypatch.setattr(psutil.Process, "cpu_affinity", lambda self: allowed, raising=False)
        return machine.describe()

    return pretend


@pytest.fixture
def card(monkeypatch):
    """Puts a CUDA card into this machine."""

    def insert(name: str, major: int, minor: int, memory: int) -> None:
        properties = SimpleNamespace(name=name, major=major, minor=minor, total_memory=memory)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)

    return insert


@pytest.mark.parametrize(
    ("cpuinfo", "name", "features", "cores", "dtype"),
    [
        (
            INTEL_AMX,
            "Intel(R) Xeon(R) Platinum 8481C",
            "avx2 avx512f avx512_vnni avx_vnni avx512_bf16 amx_bf16 amx_int8",
            4,
            "bfloat16",
        ),
        (
            AMD_ZEN5,
            "AMD EPYC 9755",
            "avx2 avx512f avx512_vnni avx_vnni avx512_bf16",
            2,
            "bfloat16",
        ),
        (OLD_AVX2, "Intel(R) Core(TM) i5-4590", "avx2", 4, "float32"),
        (ARM, "ARM processor, part 0xd40", "bf16 i8mm dotprod", 4, "bfloat16"),
        (OLD_ARM, "ARM processor, part 0xd0c", "dotprod", 4, "float32"),
    ],
    ids=["intel-amx", "amd-zen5", "old-avx2", "arm", "old-arm"],
)
def test_linux_processors(linux, cpuinfo, name, features, cores, dtype):
    found = linux(cpuinfo)
    assert found.cpu == found.device_name == name
    assert found.cpu_features == tuple(features.split())
    assert found.physical_cores == cores
    assert (found.device, found.dtype) == ("cpu", dtype)
    assert found.device_memory_gb == found.memory_gb > 0


def test_amx_alone_makes_bfloat16_fast(linux):
    flags = SAPPHIRE_FLAGS.replace("avx512_bf16", "")
    assert linux(x86("x", flags, cores=1)).dtype == "bfloat16"


@pytest.mark.parametrize(
    ("affinity", "cores"),
    [([0, 4], 1), ([0, 1, 4, 5], 2), ([0, 1, 2], 3), ([7], 1)],
    ids=["two threads of one core", "two cores with both threads", "three cores", "one thread"],
)
def test_affinity_counts_cores_and_not_threads(linux, affinity, cores):
    assert linux(INTEL_AMX, affinity=affinity).physical_cores == cores


def test_cores_with_equal_numbers_in_two_sockets_are_two():
    text = INTEL_AMX + INTEL_AMX.replace("physical id\t: 0", "physical id\t: 1")
    assert machine.read_cpuinfo(text, None)[2] == 8


def test_an_empty_cpuinfo_is_one_core():
    assert machine.read_cpuinfo("", None)[1:] == ((), 1)


def test_macs():
    assert machine.read_sysctl(MAC_M2) == ("Apple M2", ("bf16", "i8mm", "dotprod"))
    assert machine.read_sysctl(MAC_INTEL) == (
        "Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz",
        ("avx2",),
    )


def test_apple_gpu(linux, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 11_450_000_000)
    found = linux(ARM)
    assert (found.device, found.device_memory_gb, found.dtype) == ("mps", 11.4, "float32")
    assert machine.profile() == "cpu"


def test_windows_asks_torch_for_the_features(monkeypatch):
    knows = {"avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_tile": False, "cores": 8}
    monkeypatch.setattr(machine, "_read", lambda path: "")
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    monkeypatch.setattr(platform, "processor", lambda: "AMD64 Family 26")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: knows, raising=False)
    found = machine.describe()
    assert found.system.startswith("Windows ")
    assert found.cpu == "AMD64 Family 26"
    assert found.cpu_features == ("avx2", "avx512f", "avx512_bf16")
    assert found.dtype == "bfloat16"
    assert found.physical_cores >= 1


@pytest.mark.parametrize(
    ("name", "capability", "dtype"),
    [("Tesla T4", (7, 5), "float16"), ("NVIDIA A100", (8, 0), "bfloat16")],
)
def test_cuda_cards(linux, card, name, capability, dtype):
    card(name, *capability, 15_830_000_000)
    found = linux(AMD_ZEN5)
    assert (found.device, found.device_name, found.device_memory_gb) == ("cuda", name, 15.8)
    assert found.dtype == dtype
    assert name in str(found)
    assert machine.profile() == "gpu"


def test_without_torch(linux, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    found = linux(AMD_ZEN5)
    assert (found.device, found.dtype, found.threads) == ("cpu", "bfloat16", 2)


@pytest.mark.parametrize("name", ["COLAB_RELEASE_TAG", "COLAB_GPU"])
def test_colab_is_recognised(monkeypatch, name):
    assert not machine.describe().colab
    machine._describe.cache_clear()
    monkeypatch.setenv(name, "")
    assert machine.describe().colab
    assert "Google Colab" in str(machine.describe())


def test_describe_looks_once_and_follows_torchs_threads(linux, monkeypatch):
    first = linux(AMD_ZEN5)
    linux(OLD_AVX2)
    assert machine.describe() is first
    monkeypatch.setattr(torch, "get_num_threads", lambda: first.threads + 1)
    assert machine.describe().threads == first.threads + 1


def test_a_machine_as_json_and_as_a_line(linux):
    found = linux(INTEL_AMX)
    as_dict = found.as_dict()
    assert json.loads(json.dumps(as_dict)) == as_dict
    assert machine.Machine(**as_dict | {"cpu_features": tuple(as_dict["cpu_features"])}) == found
    assert "\n" not in str(found)
    for part in ("Platinum 8481C", "amx_int8", "4 cores", "bfloat16 on cpu"):
        assert part in str(found)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("files", "limits"),
    [
        ({}, (float("inf"), float("inf"))),
        (
            {
                "proc/self/cgroup": "0::/",
                "sys/fs/cgroup/memory.max": "max",
                "sys/fs/cgroup/cpu.max": "max 100000",
            },
            (float("inf"), float("inf")),
        ),
        (
            {
                "proc/self/cgroup": "0::/",
                "sys/fs/cgroup/memory.max": "4000000000",
                "sys/fs/cgroup/cpu.max": "150000 100000",
            },
            (4e9, 1.5),
        ),
        (
            {
                "proc/self/cgroup": "0::/lesson/group/own",
                "sys/fs/cgroup/lesson/memory.max": "2000000000",
                "sys/fs/cgroup/lesson/group/own/memory.max": "6000000000",
                "sys/fs/cgroup/lesson/group/cpu.max": "300000 100000",
            },
            (2e9, 3.0),
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/docker/a1\n4:cpu,cpuacct:/docker/a1\n1:name=x:/",
                "sys/fs/cgroup/memory/docker/a1/memory.limit_in_bytes": "3000000000",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/cpu/docker/a1/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu/docker/a1/cpu.cfs_period_us": "100000",
            },
            (3e9, 0.5),
        ),
        (
            {
                "proc/self/cgroup": "5:memory:/host/path\n4:cpu:/host/path",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000000000",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            (1e9, float("inf")),
        ),
    ],
    ids=["none", "v2 unlimited", "v2", "v2 nested", "v1", "v1 seen from inside"],
)
def test_container_limits(tmp_path, files, limits):
    assert machine.container_limits(write(tmp_path, files)) == limits


@pytest.mark.parametrize(("quota", "cores"), [(0.5, 1), (1.5, 1), (3.0, 3), (64.0, 4)])
def test_a_container_is_the_machine(linux, monkeypatch, quota, cores):
    monkeypatch.setattr(machine, "container_limits", lambda: (500_000_000, quota))
    found = linux(INTEL_AMX)
    assert (found.physical_cores, found.memory_gb) == (cores, 0.5)


def test_profile_is_overridden(monkeypatch):
    assert machine.profile() == "cpu"
    for name in machine.PROFILES:
        monkeypatch.setenv("COURSE_PROFILE", name)
        assert machine.profile() == name


def test_an_unknown_profile_names_the_known_ones(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "huge")
    with pytest.raises(CourseError, match="huge") as caught:
        machine.profile()
    assert caught.value.where == "COURSE_PROFILE"
    assert "smoke, cpu, gpu" in caught.value.do


def test_cache_dir_is_made_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "deep" / "cache"))
    assert machine.cache_dir() == tmp_path / "deep" / "cache"
    assert machine.cache_dir().is_dir()


def test_cache_dir_is_in_the_home_folder_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert machine.cache_dir() == tmp_path / ".cache" / "shrinking-bert"


def test_a_cache_dir_that_cannot_be_written_to(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError):
        machine.cache_dir()


def test_use_all_cores(monkeypatch):
    before = torch.get_num_threads()
    three = replace(machine.describe(), physical_cores=3)
    monkeypatch.setattr(machine, "describe", lambda: three)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    try:
        assert machine.use_all_cores() == torch.get_num_threads() == 3
        torch.set_num_threads(1)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert machine.use_all_cores() == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


PAGES = """
import resource, sys, torch
from course_utils import machine

if sys.argv[1] == "keep":
    machine.keep_freed_memory()

def use():
    torch.ones(2**24)  # 67 MB

for _ in range(10):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again():
    taken = {
        way: int(subprocess.check_output([sys.executable, "-c", PAGES, way]))
        for way in ("keep", "give back")
    }
    assert 4 * taken["keep"] < taken["give back"]
