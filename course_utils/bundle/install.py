"""Sets the course up from this folder, without a network: python install.py [FOLDER]

This file travels inside every bundle, and install.sh and install.bat call it. So it needs the
standard library alone, and nothing of it is newer than Python 3.6: an old Python shall say that it
is too old.
"""

import argparse
import hashlib
import http.client
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import venv
from pathlib import Path, PureWindowsPath

SUMS, MANIFEST, MARK = "SHA256SUMS", "bundle.json", ".shrinking-bert.json"
WHEELS, COURSE, CACHE = "wheels", "course", "cache"
SYSTEMS = {"Linux": "linux", "Darwin": "macos", "Windows": "windows"}
GLIBC, MACOS = (2, 28), (14,)
OF_BUNDLE = {name: str for name in ("python", "python_least", "built_with", "pip")}
OF_BUNDLE.update(other_bytes=int, platforms=dict)  # what bundle.json must say, and in which kind
OF_PLATFORM = {"wheels": list, "pins": list, "wheel_bytes": int, "unpacked_bytes": int}
AGAIN = "Copy the bundle anew, or run `course bundle` again where it was made."


class Refusal(Exception):
    """What stands in the way, and what to do about it."""

    def __init__(self, what, do):
        super().__init__(f"{what}\n  what to do: {do}")


# --- what a bundle is ---


def this_platform():
    """This machine's name among the platforms, such as linux-x86_64 or macos-arm64."""
    system = SYSTEMS.get(platform.system(), platform.system().lower())
    machine = platform.machine().lower().replace("amd64", "x86_64")
    return "{}-{}".format(system, "aarch64" if (system, machine) == ("linux", "arm64") else machine)


def read_bundle(bundle):
    """What the bundle says of itself, and its sums; `Refusal` if a wheel that it names has none."""
    manifest, sums = read_manifest(bundle), read_sums(bundle)
    every = (name for each in manifest["platforms"].values() for name in each["wheels"])
    lacking = {f"{WHEELS}/{name}" for name in every} - set(sums)
    if lacking:
        raise Refusal("{} lacks {}.".format(SUMS, ", ".join(sorted(lacking))), AGAIN)
    return manifest, sums


def read_manifest(bundle):
    """What the bundle says of itself; `Refusal` when it is none or was not finished."""
    for name in (MANIFEST, SUMS):
        if not (bundle / name).is_file():
            raise Refusal(f"This is not a whole bundle: {name} is missing in {bundle}.", AGAIN)
    try:
        manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        manifest = None
    parts = manifest["platforms"].values() if holds(manifest, OF_BUNDLE) else [None]
    if not all(holds(part, {"wheels": list}) for part in parts):
        raise Refusal(f"{bundle / MANIFEST} is damaged.", AGAIN)
    return manifest


def holds(found, kinds):
    """Whether this is an object with all these keys, each with a value of its kind."""
    return isinstance(found, dict) and all(isinstance(found.get(k), kinds[k]) for k in kinds)


def read_sums(bundle):
    """The SHA-256 of every file of the bundle by its path, from a file as sha256sum writes it."""
    try:
        lines = (bundle / SUMS).read_text(encoding="utf-8").splitlines()
        sums = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except ValueError:
        sums = {}
    if MANIFEST in sums and all(map(is_inside, sums)):
        return sums
    raise Refusal(f"{bundle / SUMS} is damaged.", AGAIN)


def is_inside(name):
    """Whether a path stays in the folder it is put after, on every system."""
    path = PureWindowsPath(name)  # it knows both slashes, and drives
    return not path.anchor and ".." not in path.parts and "\0" not in name


def sha256(file):
    """The SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(str(file), "rb") as stream:
        for block in iter(lambda: stream.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


def damage(bundle, sums):
    """What is wrong with these files of the bundle: a list of lines, empty when all is well."""
    found = []
    for k, name in enumerate(sums, 1):
        progress("checked", k, len(sums))
        try:
            if sha256(bundle / name) != sums[name]:
                found.append(f"{name} is damaged")
        except FileNotFoundError:
            found.append(f"{name} is missing")
        except OSError as error:  # a stick that cannot be read at this place
            found.append(f"{name} cannot be read ({error.strerror})")
    return found


def refuse_damage(bundle, sums):
    """Nothing; `Refusal` that names every file that is missing or damaged."""
    found = damage(bundle, sums)
    if found:
        raise Refusal("This bundle is not as it was made: {}.".format(", ".join(found)), AGAIN)


def tell(line):
    """Nothing; the line is printed before anything that a process started later prints."""
    print(line, flush=True)


def progress(what, done, of):
    """Nothing; on a terminal, one line that counts."""
    if sys.stdout.isatty():
        print(f"\r  {what} {done} of {of}", end="\n" if done == of else "", flush=True)


# --- whether it fits here; nothing is written ---


def fitting(manifest):
    """What the bundle has for this machine; `Refusal` for another platform or Python."""
    here, version = this_platform(), platform.python_version()
    if here not in manifest["platforms"]:
        made = ", ".join(manifest["platforms"])
        do = f"Run `course bundle --platforms {here}` where it was made."
        raise Refusal(f"This bundle is for {made}; this machine is {here}.", do)
    least = manifest["python_least"]
    if version.split(".")[:2] != least.split(".")[:2] or sys.version_info < numbers(least):
        raise Refusal(
            "This bundle is for Python {}, from {} on; this is {} ({}).".format(
                manifest["python"], least, version, sys.executable
            ),
            "Install Python {}, or make a bundle with Python {}.".format(
                manifest["python"], ".".join(version.split(".")[:2])
            ),
        )
    if sys.maxsize < 2**32:
        raise Refusal("This Python is a 32-bit one.", "Install the 64-bit Python.")
    name, libc = platform.libc_ver()
    if here.startswith("linux") and (name != "glibc" or numbers(libc) < GLIBC):
        what = "This Linux has {} {}; the packages need glibc 2.28.".format(
            name or "no glibc", libc
        )
        raise Refusal(what, "Use a system of 2018 or newer that is not Alpine.")
    if here.startswith("macos") and numbers(platform.mac_ver()[0]) < MACOS:
        raise Refusal(f"This is macOS {platform.mac_ver()[0]}.", "The packages need macOS 14.")
    ours = manifest["platforms"][here]
    if not holds(ours, OF_PLATFORM):
        raise Refusal(f"{MANIFEST} is damaged.", AGAIN)
    return ours


def numbers(version):
    """A version as a tuple that can be compared."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def check_target(target):
    """What an earlier installation noted in this folder; `Refusal` when it holds something else."""
    try:
        return json.loads((target / MARK).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        pass
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Refusal(
            f"{target} is not empty and holds no course.",
            "Name another folder: install.sh FOLDER.",
        )
    return {}


def check_space(place, wanted):
    """Nothing; `Refusal` when the disk of this folder has fewer bytes free than wanted."""
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(str(place)).free
    if free < wanted:
        raise Refusal(
            f"{wanted / 1e9:.2f} GB are needed below {place} and {free / 1e9:.2f} GB are free.",
            f"Free {(wanted - free) / 1e9:.2f} GB, or name a folder on another disk.",
        )


# --- the work ---


def install(source, target):
    """The doctor's exit code, after everything was put in place; `Refusal` before that."""
    remote = source if "://" in source else None
    bundle = target / ".bundle" if remote else Path(source)
    noted = check_target(target)
    if remote:
        target.mkdir(parents=True, exist_ok=True)
        note(target, noted)
        for name in (MANIFEST, SUMS):
            download(remote, name, bundle)
    manifest, sums = read_bundle(bundle)
    ours = fitting(manifest)
    wheels = {WHEELS + "/" + name for name in ours["wheels"]}
    files = {n: s for n, s in sums.items() if n in wheels or not n.startswith(WHEELS + "/")}
    environment = hashlib.sha256(json.dumps(sorted(files[n] for n in wheels)).encode()).hexdigest()
    fresh = noted.get("environment") != environment or not python_of(target).exists()
    wanted = manifest["other_bytes"]
    if fresh:
        wanted += ours["unpacked_bytes"] + (ours["wheel_bytes"] if remote else 0)
    else:
        files = {name: digest for name, digest in files.items() if name not in wheels}
    check_space(target, wanted)
    if remote:
        for k, name in enumerate(files, 1):
            progress("downloaded", k, len(files))
            if not (bundle / name).exists() or sha256(bundle / name) != files[name]:
                download(remote, name, bundle)
    tell(f"1/4 Checking {len(files)} files of the bundle")
    refuse_damage(bundle, files)

    target.mkdir(parents=True, exist_ok=True)
    if fresh:
        noted.pop("environment", None)
        note(target, noted)
        tell("2/4 Installing {} packages; this takes some minutes".format(len(ours["wheels"])))
        make_environment(target, bundle, manifest["pip"], ours["pins"])
        noted["environment"] = environment
        note(target, noted)
    else:
        tell("2/4 The packages are installed already")
    tell("3/4 Notebooks and what they build once")
    placed = {n[len(COURSE) + 1 :]: s for n, s in files.items() if n.startswith(COURSE + "/")}
    noted["files"] = place(bundle / COURSE, placed, target, noted.get("files", {}))
    note(target, noted)
    fill_cache(bundle, files, manifest)
    if remote:
        shutil.rmtree(str(bundle))
    return finish(target)


def finish(target):
    """The doctor's exit code; what to type next is printed."""
    tell("4/4 course doctor\n")
    python = python_of(target)
    call = [str(python), "-I", "-m"]  # apart from what PYTHONPATH brings in
    # Else JupyterLab hides some figures until it is told to show them; nothing depends on it.
    notebooks = [str(file) for file in sorted((target / "notebooks").glob("*.ipynb"))]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*call, "jupyter", "trust", *notebooks], **quiet)
    code = subprocess.run([*call, "course_utils", "doctor"], cwd=str(target)).returncode
    tell("\n{}:\n".format("Next" if code == 0 else "Once the doctor is content"))
    tell(f'  cd "{target}"')
    lab = (python.parent / "jupyter").relative_to(target)
    tell(f"  {lab} lab --ServerApp.root_dir=. notebooks/00_start_here.ipynb")
    return code


def download(remote, name, folder):
    """Nothing; the file of the server lies in the folder, whole."""
    url = remote.rstrip("/") + "/" + urllib.parse.quote(name)
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    # The server is in this room: a proxy that is set for the internet does not know it.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=30) as answer, open(str(part), "wb") as stream:
            shutil.copyfileobj(answer, stream)
    except (urllib.error.URLError, http.client.HTTPException, ValueError) as error:
        do = "See that the server runs in the bundle's folder, and run this again."
        raise Refusal(f"{url} did not come: {error}.", do) from None
    os.replace(str(part), str(file))


def python_of(target):
    """The Python of the environment in the target."""
    folder = target / ".venv"
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def make_environment(target, bundle, pip, pins):
    """Nothing; the environment is made anew, with pip run from its wheel: a Python may lack it."""
    venv.create(str(target / ".venv"), clear=True, with_pip=False)
    # What a person has set for pip elsewhere, such as another index, must not matter here.
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "PYTHON"))}
    settings["PIP_CONFIG_FILE"] = os.devnull
    requirements = target / "requirements.txt"
    requirements.write_text("\n".join(pins) + "\n", encoding="utf-8")
    wheels = bundle / WHEELS
    command = [str(python_of(target)), str(wheels / pip / "pip"), "install", "--no-index"]
    command += ["--find-links", str(wheels), "--no-deps", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--requirement", str(requirements)]
    log = target / "install.log"
    with open(str(log), "w", encoding="utf-8") as stream:
        work = subprocess.Popen(command, env=settings, stdout=stream, stderr=subprocess.STDOUT)
    try:
        while work.poll() is None:
            time.sleep(0.5)
            ready = sum(1 for _ in (target / ".venv").rglob("*.dist-info"))
            progress("installed", min(ready, len(pins) - 1), len(pins))
    except BaseException:
        work.kill()
        raise
    if work.returncode:
        said = log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
        do = f"Read {log}; then run this again."
        raise Refusal("pip stopped: {}".format(" ".join(said)), do)


def place(source, sums, target, before):
    """The SHA-256 of what was put into the target; a file that a learner has changed stays."""
    kept = []
    for name, digest in sums.items():
        file = target / name
        if file.exists() and sha256(file) not in (digest, before.get(name)):
            kept.append(name)
            continue
        if not file.exists() or sha256(file) != digest:
            copy(source / name, file)
    if kept:
        tell("  left as you changed them: {}".format(", ".join(kept)))
    return sums


def copy(source, file):
    """Nothing; the file is copied whole, or nothing is there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name("." + file.name + ".part")
    shutil.copyfile(str(source), str(part))
    os.replace(str(part), str(file))


def fill_cache(bundle, files, manifest):
    """Nothing; what the notebooks build once is in the course's cache, if it is good here."""
    units = {tuple(n.split("/")[1:3]) for n in files if n.startswith(CACHE + "/")}
    if units and platform.python_version() != manifest["built_with"]:
        # The texts are those of Python's own documentation, too: of this release, and no other.
        tell("  the texts are built on first use: these are of Python " + manifest["built_with"])
        return
    cache = Path(os.environ.get("COURSE_CACHE") or "~/.cache/shrinking-bert").expanduser()
    for unit in sorted(units):  # a folder that is good as a whole, such as prepared/pydocs_teacher
        source, place = bundle.joinpath(CACHE, *unit), cache.joinpath(*unit)
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_file():
            copy(source, place)
            continue
        work = Path(tempfile.mkdtemp(prefix="." + place.name + "-", dir=str(place.parent)))
        for file in source.rglob("*"):
            if file.is_file():
                copy(file, work / file.relative_to(source))
        os.chmod(str(work), 0o755)
        os.rename(str(work), str(place))


def note(target, noted):
    """Nothing; what is installed is written down, in one step."""
    part = target / (MARK + ".part")
    part.write_text(json.dumps(noted), encoding="utf-8")
    os.replace(str(part), str(target / MARK))


def main(words=None):
    """The exit code: 0 when the machine is ready."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Sets the course up, without the internet.")
    parser.add_argument("folder", nargs="?", default="~/shrinking-bert", help="%(default)s")
    parser.add_argument("--from", dest="source", default=str(here), help="a folder, or http://…")
    parser.add_argument("--check", action="store_true", help="check every file, install nothing")
    wish = parser.parse_args(words)
    try:
        if wish.check:
            _, sums = read_bundle(Path(wish.source))
            refuse_damage(Path(wish.source), sums)
            print("Every file is as it was made.")
            return 0
        return install(wish.source, Path(wish.folder).expanduser().absolute())
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
    except OSError as error:
        print(f"{error}\n  what to do: run this again when that is mended.", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nInterrupted. Run the same command again to go on.", file=sys.stderr)
        return 130
    return 2


if __name__ == "__main__":
    sys.exit(main())
