"""This computer, as far as the course must know it: cores, memory, device, fast dtype."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from types import ModuleType

from course_utils.errors import CourseError
from course_utils.files import check_writable

PROFILES = ("smoke", "cpu", "gpu")
X86 = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
ARM = ("bf16", "i8mm", "dotprod")
FAST_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt, in <malloc.h>
ALIASES = {"asimddp": "dotprod", "dot": "dotprod", "avx512_f": "avx512f"}  # Linux's and torch's


@dataclass(frozen=True)
class Machine:
    """What was found. Gigabytes are 10^9 bytes; limits of a container count as the machine's."""

    system: str
    python: str
    cpu: str
    physical_cores: int  # those this process may use
    threads: int  # what torch uses at the moment
    cpu_features: tuple[str, ...]
    memory_gb: float
    device: str  # "cuda" | "mps" | "cpu"
    device_name: str
    device_memory_gb: float
    dtype: str  # in which training and inference are fast here: "bfloat16" | "float16" | "float32"
    colab: bool

    def as_dict(self) -> dict[str, object]:
        """The fields by name, ready for JSON."""
        return asdict(self) | {"cpu_features": list(self.cpu_features)}

    def __str__(self) -> str:
        accelerator = f" | {self.device_name}, {self.device_memory_gb} GB" * (self.device != "cpu")
        return (
            f"{self.system}, Python {self.python}{', Google Colab' * self.colab}"
            f" | {' '.join((self.cpu, *self.cpu_features))}"
            f" | {self.physical_cores} cores, {self.threads} threads, {self.memory_gb} GB"
            f"{accelerator} | {self.dtype} on {self.device}"
        )


def describe() -> Machine:
    """The machine this process runs on. Looked at once; `threads` follows torch's setting."""
    torch = _torch()
    return _describe(torch.get_num_threads() if torch else None)


def profile() -> str:
    """`COURSE_PROFILE` (`CourseError` if unknown), else "gpu" where CUDA works, else "cpu"."""
    wish = os.environ.get("COURSE_PROFILE") or ("gpu" if describe().device == "cuda" else "cpu")
    if wish not in PROFILES:
        do = f"Set COURSE_PROFILE to one of {', '.join(PROFILES)}, or leave it unset."
        raise CourseError(f"There is no profile {wish!r}.", where="COURSE_PROFILE", do=do)
    return wish


def cache_dir() -> Path:
    """`COURSE_CACHE` or ~/.cache/shrinking-bert, made if missing; `OutputError` if not writable."""
    folder = os.environ.get("COURSE_CACHE") or "~/.cache/shrinking-bert"
    return check_writable(Path(folder).expanduser())


def use_all_cores() -> int:
    """Threads torch uses from now on: `OMP_NUM_THREADS` if set, else one per physical core."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(describe().physical_cores)
    return torch.get_num_threads()


def keep_freed_memory() -> None:
    """Nothing; from now on memory that was freed stays with this process, ready for use again.

    The C library of Linux gives the room of a large tensor back to the system at once, and takes
    it anew, page by page, for the next one: up to a third of a training step on a CPU. The price is
    a somewhat higher peak of memory. Where there is another C library, nothing changes.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_THRESHOLD, 2**30)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@lru_cache(maxsize=8)
def _describe(threads: int | None) -> Machine:
    import psutil

    cpu, features, cores = _processor()
    memory, quota = container_limits()
    cores = max(1, int(min(cores, quota)))
    memory_gb = round(min(psutil.virtual_memory().total, memory) / 1e9, 1)
    dtype = "bfloat16" if FAST_BFLOAT16 & set(features) else "float32"
    device = _accelerator() or ("cpu", cpu, memory_gb, dtype)
    system = f"{platform.system().replace('Darwin', 'macOS')} {platform.machine()}"
    colab = "COLAB_RELEASE_TAG" in os.environ or "COLAB_GPU" in os.environ
    software = (system, platform.python_version())
    hardware = (cpu, cores, threads or cores, features, memory_gb)
    return Machine(*software, *hardware, *device, colab)


def _torch() -> ModuleType | None:
    """torch, or None where it is missing or broken, so that the doctor can say so."""
    try:
        import torch
    except (ImportError, OSError):
        return None
    return torch


def _accelerator() -> tuple[str, str, float, str] | None:
    """Device, its name, its memory in GB and its fast dtype, if torch can use one."""
    torch = _torch()
    if torch and torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        # Cards before Ampere (capability 8) emulate bfloat16, slowly.
        dtype = "bfloat16" if card.major >= 8 else "float16"
        return "cuda", card.name, round(card.total_memory / 1e9, 1), dtype
    if torch and torch.backends.mps.is_available():
        return "mps", "Apple GPU", round(torch.mps.recommended_max_memory() / 1e9, 1), "float32"
    return None


def _processor() -> tuple[str, tuple[str, ...], int]:
    """Name, features and physical cores that this process may use."""
    import psutil

    process = psutil.Process()
    allowed = set(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else None
    if text := _read(Path("/proc/cpuinfo")):
        return read_cpuinfo(text, allowed)
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    if platform.system() == "Darwin":
        text = os.popen("sysctl machdep.cpu hw.optional").read()
        return *read_sysctl(text), cores
    torch_knows = getattr(getattr(_torch(), "cpu", None), "get_capabilities", dict)()
    features = known(name for name, there in torch_knows.items() if there is True)
    return platform.processor(), features, min(cores, len(allowed or range(cores)))


def read_cpuinfo(text: str, allowed: set[int] | None) -> tuple[str, tuple[str, ...], int]:
    """Name, features and number of physical cores in the text of Linux's /proc/cpuinfo.

    Only processors in `allowed` count (None: all). Those with equal physical id and core id are
    threads of one core; without these lines (ARM) each is a core.
    """
    facts, cores = {}, set()
    for block in text.split("\n\n"):
        fields = (line.partition(":") for line in block.splitlines())
        facts |= (here := {key.strip(): value.strip() for key, _, value in fields})
        number = int(here.get("processor", -1))
        if number in (allowed or {number}) and number >= 0:
            cores.add((here.get("physical id"), here.get("core id", f"processor {number}")))
    name = facts.get("model name") or f"ARM processor, part {facts.get('CPU part', 'unknown')}"
    flags = facts.get("flags") or facts.get("Features", "")
    return name, known(flags.split()), max(1, len(cores))


def read_sysctl(text: str) -> tuple[str, tuple[str, ...]]:
    """Name and features in what macOS's `sysctl machdep.cpu hw.optional` prints."""
    values = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    names = values.get("machdep.cpu.leaf7_features", "").split()  # Intel's
    names += [key.rsplit("FEAT_", 1)[-1] for key, value in values.items() if value == "1"]
    name = values.get("machdep.cpu.brand_string", "unknown processor")
    return name, known(map(str.lower, names))


def known(names: Iterable[str]) -> tuple[str, ...]:
    """The features among the names that matter here, in our order and spelling."""
    found = {ALIASES.get(name, name) for name in names}
    return tuple(feature for feature in X86 + ARM if feature in found)


def container_limits(root: Path = Path("/")) -> tuple[float, float]:
    """Bytes of memory and processors that Linux's cgroups (v1, v2) allow; infinity is no limit."""
    memory = processors = float("inf")
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        for controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
            # A group is bound by all groups above it: the least limit counts.
            for folder in accumulate(group.strip("/").split("/"), Path.joinpath, initial=top):
                quota, _, period = _read(folder / "cpu.max").partition(" ")
                quota = quota or _read(folder / "cpu.cfs_quota_us")
                period = period or _read(folder / "cpu.cfs_period_us")
                if quota.isdigit():  # neither "max" nor -1
                    processors = min(processors, int(quota) / int(period))
                limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
                if limit.isdigit():
                    memory = min(memory, int(limit))
    return memory, processors


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
