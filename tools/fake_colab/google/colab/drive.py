"""A Drive that is a folder."""

from pathlib import Path


def mount(mountpoint: str, force_remount: bool = False) -> None:
    """Nothing; the folder is there, with the Drive's one entry."""
    Path(mountpoint, "MyDrive").mkdir(parents=True, exist_ok=True)
