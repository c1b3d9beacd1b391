"""Which files of a folder are images: one rule for every command, and a sentence about everything else that is there.

A path with a hidden part, or with a folder that an operating system, a NAS or a notebook keeps for itself, is never an
image. Only parts below the folder that was asked for count. Linked files and folders are followed.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from data.decode import FORMATS
from data.faults import InputError, named

SUFFIXES = frozenset(
    {".jpeg", ".jpg", ".jfif", ".jpe", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm"}
)
HEATMAP = ".heatmap.png"  # how `predict --heatmap` ends the names of what it writes
# Not worth a word: what systems leave in every folder.
SYSTEM_FILES = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", ".localized", ".directory", "icon\r", ".gitkeep"}
)
SYSTEM_FOLDERS = frozenset(
    {
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@tmp"),  # NAS: Synology, QNAP
        *("__macosx", "network trash folder", "temporary items"),  # macOS
        *("$recycle.bin", "recycler", "system volume information", "found.000"),  # Windows
        "lost+found",  # Linux
        "__pycache__",
    }
)

IMAGE, FOLDER = "image", "folder"
HIDDEN_FILE, SYSTEM_FOLDER = "hidden file", "hidden or system folder"
BROKEN_LINK, SPECIAL = "broken link", "special file"
LOOP = "linked folder leading back to a folder above it"
LISTED_BEFORE = "linked folder listed already"
NO_SUFFIX, OLD_HEATMAP = "file without a known suffix", "heat map of an earlier prediction"
_MANY_FRAMES = frozenset({".gif", ".tif", ".tiff", ".webp"})
_KINDS, _NAMES = 6, 3  # how many are named at most


class Entry(NamedTuple):
    """Something in a folder: an image, a folder, or what it is passed over as; `fault` is why it cannot be read."""

    path: Path
    kind: str
    fault: str = ""


@dataclass(frozen=True)
class ClassFolders:
    """The images of a folder that has one folder for each class.

    Attributes:
        images: Class -> its images, both in order.
        notes: What was passed over, one sentence each.
        faults: What cannot be used, one sentence each.
    """

    images: Mapping[str, Sequence[Path]]
    notes: tuple[str, ...]
    faults: tuple[str, ...]


def text_of(path: str | Path) -> str:
    r"""The name of a file as text that every file, database and terminal takes, the same in every locale.

    Bytes that are not UTF-8, as old archives and network drives have them, are written as `\xe9`.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def path_of(text: str) -> Path:
    """The file that `text_of` named, where its name is UTF-8; also in a locale that cannot write it."""
    return Path(os.fsdecode(text.encode("utf-8", "surrogateescape")))


def suffixes_read() -> str:
    """The end of a message about a folder without images."""
    return f"files that end in {', '.join(sorted(SUFFIXES))} are read, in small or capital letters"


def contents(folder: Path) -> list[Entry]:
    """Says of everything in a folder what it is; system files are left out.

    Raises:
        OSError: The folder cannot be read.
    """
    with os.scandir(folder) as entries:
        names = sorted((entry.name for entry in entries), key=os.fsencode)
    return [_entry(folder / name) for name in names if name.lower() not in SYSTEM_FILES]


def walk(folder: Path, depth: int | None = None) -> Iterator[Entry]:
    """Finds everything in a folder and below it, but folders; each folder once, by whatever links it can be reached.

    Args:
        folder: The folder.
        depth: How many levels of folders are looked into; None for all.
    """
    pending, linked, visited = [(folder, 1)], [], set()
    while pending or linked:
        here, level = pending.pop() if pending else linked.pop(0)
        real = here.resolve()
        back = level > 1 and here.is_symlink() and _leads_back(here, real)
        if back or real in visited:
            yield Entry(here, LOOP if back else LISTED_BEFORE)
            continue
        visited.add(real)
        try:
            entries = contents(here)
        except OSError as error:
            yield Entry(here, FOLDER, f"{text_of(here)}: cannot be read ({error.strerror})")
            continue
        for entry in entries:
            if entry.kind != FOLDER:
                yield entry
            elif depth is None or level < depth:
                # Linked ones last: a folder is listed by the name that it has here, if it is here.
                (linked if entry.path.is_symlink() else pending).append((entry.path, level + 1))


def images_of(entries: Iterable[Entry]) -> list[Path]:
    """The images among some entries, in order of their names' bytes, folder by folder."""
    images = [entry.path for entry in entries if entry.kind == IMAGE]
    return sorted(images, key=lambda path: [os.fsencode(part) for part in path.parts])


def passed_over(entries: Iterable[Entry], *, images: bool = False) -> str:
    """Counts and names what is no image, such as `10 .dcm files, 1 broken link (more)`; empty where all are.

    Args:
        entries: What is there.
        images: Whether images are passed over too, as they are where an image has no class.
    """
    kinds: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        if (images or entry.kind != IMAGE) and not entry.fault:
            kinds[_suffix_kind(entry.path) if entry.kind == IMAGE else entry.kind].append(text_of(entry.path.name))
    ordered = sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0]))
    parts = []
    for kind, names in ordered[:_KINDS]:
        counted = re.sub(r"\b(file|folder|link|map)\b", r"\1s", kind, count=1) if len(names) > 1 else kind
        more = ", ..." if len(names) > _NAMES else ""
        which = "" if kind.startswith(".") else f" ({', '.join(sorted(names)[:_NAMES])}{more})"
        parts.append(f"{len(names):,} {counted}{which}")
    others = sum(len(names) for _, names in ordered[_KINDS:])
    return ", ".join([*parts, f"{others:,} other files"] if others else parts)


def class_folders(folder: Path, name: str) -> ClassFolders:
    """Lists a folder that holds one folder for each class.

    Args:
        folder: The folder.
        name: What it is called in messages, such as `train`; empty for the data set's own folder.
    """
    images: dict[str, list[Path]] = {}
    notes, faults = [], []
    try:
        here = contents(folder)
    except OSError as error:
        return ClassFolders({}, (), (f"{text_of(folder)}: cannot be read ({error.strerror})",))
    faults += [entry.fault for entry in here if entry.fault]
    faults += [
        f"{text_of(entry.path)}: is a link to nothing; make the link again, or remove it"
        for entry in here
        if entry.kind == BROKEN_LINK and not entry.fault
    ]
    if others := passed_over((entry for entry in here if entry.kind not in (FOLDER, BROKEN_LINK)), images=True):
        notes.append(f"passed over {others} in {name or text_of(folder)}, beside the class folders")
    for entry in here:
        if entry.kind != FOLDER:
            continue
        if entry.path.is_symlink() and _leads_back(entry.path, entry.path.resolve()):
            faults.append(f"{text_of(entry.path)}: is a {LOOP}; remove it")
            continue
        label, found = text_of(entry.path.name), list(walk(entry.path))
        where = f"{name}/{label}" if name else label
        images[label] = images_of(found)
        unreadable = [other.fault for other in found if other.fault]
        faults += named(unreadable)
        others = passed_over(found)
        if not images[label] and not unreadable:
            why = f" (passed over: {others})" if others else ""
            faults.append(f"{where}/ holds no image{why}; {suffixes_read()}")
        elif others:
            notes.append(f"passed over {others} in {where}")
    if twins := hint_of_case(images, images):
        notes.append(f"{twins.removeprefix('; ')}, if they are one class")
    return ClassFolders(images, tuple(notes), tuple(faults))


def frames_note(paths: Iterable[Path]) -> tuple[str, ...]:
    """A sentence about files that hold more than one picture, if there are any."""
    several = [text_of(path.name) for path in paths if path.suffix.lower() in _MANY_FRAMES and _frames(path) > 1]
    if not several:
        return ()
    more = ", ..." if len(several) > _NAMES else ""
    count = "1 file holds" if len(several) == 1 else f"{len(several):,} files hold"
    return (f"{count} several frames, of which the first is read: {', '.join(several[:_NAMES])}{more}",)


def place_of(location: Path) -> Path:
    """The file or folder that somebody gave as `--data`, `~` too.

    Raises:
        InputError: It is not there, or cannot be reached.
    """
    try:
        if not location.exists() and str(location).startswith("~"):
            location = Path(os.path.expanduser(location))  # noqa: PTH111 - leaves `~nobody` as it is
        location.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"--data {text_of(location)}: no such file or folder") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--data {text_of(location)[:200]}: cannot be read ({reason})") from error
    return location


def hint_of_place(root: Path, folders: Iterable[Path]) -> str:
    """Where train/ and test/ may be, if they are not in a folder."""
    if root.suffix.lower() == ".npz":
        return "; it is a folder, and an .npz file was expected by its name"
    folders = list(folders)
    # os.path says no where a folder may not be entered; Path raises.
    nested = [child for child in folders if any(os.path.isdir(child / name) for name in ("train", "test"))]  # noqa: PTH112
    if nested:
        return f"; did you mean {text_of(nested[0])}?"
    for above in root.resolve().parents[:2]:
        if all(os.path.isdir(above / name) for name in ("train", "test")):  # noqa: PTH112
            return f"; did you mean {text_of(above)}?"
    return f"; it has the folders {', '.join(text_of(child.name) for child in folders[:10])}" if folders else ""


def hint_of_case(classes: Iterable[str], others: Iterable[str]) -> str:
    """Says which names of two lists of class folders look the same and are not."""
    alike = {_look(name): name for name in classes}
    pairs = [(ours, name) for name in others if (ours := alike.get(_look(name), name)) != name]
    return "".join(f"; {ours} and {theirs} {_difference(ours, theirs)}: rename one" for ours, theirs in pairs)


def _look(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()


def _difference(first: str, second: str) -> str:
    if first.casefold() == second.casefold():
        return "differ only in capital letters"
    return f"({first!a}, {second!a}) differ only in spaces or in how their letters are encoded"


def _entry(path: Path) -> Entry:
    hidden = path.name.startswith(".") or path.name.lower() in SYSTEM_FOLDERS
    is_image = path.suffix.lower() in SUFFIXES
    try:
        mode = path.stat().st_mode
    except OSError as error:
        link = os.path.islink(path)  # noqa: PTH114 - Path.is_symlink raises where the folder cannot be searched
        if link and (hidden or not is_image):
            return Entry(path, HIDDEN_FILE if hidden else BROKEN_LINK)
        reason = "a link to nothing" if link else error.strerror
        return Entry(path, BROKEN_LINK, f"{text_of(path)}: cannot be read ({reason})")
    if stat.S_ISDIR(mode):
        return Entry(path, SYSTEM_FOLDER if hidden else FOLDER)
    if hidden:
        return Entry(path, HIDDEN_FILE)
    if not stat.S_ISREG(mode):
        return Entry(path, SPECIAL)
    if path.name.endswith(HEATMAP):
        return Entry(path, OLD_HEATMAP)
    return Entry(path, IMAGE if is_image else _suffix_kind(path))


def _suffix_kind(path: Path) -> str:
    # The last part of a number, as DICOM files have them for names, is no suffix.
    suffix = path.suffix.lower()
    return f"{suffix} file" if re.fullmatch(r"\.[a-z][a-z0-9]{0,9}|\.7z", suffix) else NO_SUFFIX


def _leads_back(path: Path, real: Path) -> bool:
    return any(real == parent.resolve() for parent in path.absolute().parents)


def _frames(path: Path) -> int:
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            return getattr(image, "n_frames", 1)
    except Exception:  # what cannot be read is said where it is decoded
        return 1
