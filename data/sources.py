"""Where images come from: a folder, an .npz file, Kaggle's download or the built-in synthetic images.

A source lists its images and can decode one of them; it reads no pixels before it is asked to.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from platformdirs import user_data_path

from data import synthetic
from data.faults import InputError, named
from data.listing import (
    FOLDER,
    class_folders,
    contents,
    frames_note,
    hint_of_case,
    hint_of_place,
    passed_over,
    place_of,
    text_of,
)
from data.npz import SPLITS, read_arrays
from data.source import Listing, Source

KAGGLE_DATASET = "paultimothymooney/chest-xray-pneumonia"
# Kermany's names: person123_bacteria_456 for pneumonia; IM-0123-0001 and NORMAL2-IM-0123-0001, two numberings, for
# normals.
PATIENT_PATTERN = r"person\d+|NORMAL2-IM-\d+|IM-\d+"

# How the films of Kermany et al. (2018) are called, on Kaggle and elsewhere; a data set with all of these is theirs.
KERMANY = tuple(map(re.compile, (r"person\d+_bacteria_\d+", r"person\d+_virus_\d+", r"NORMAL2-IM-\d+-\d+")))


def open_source(location: Path | None, *, patient_pattern: str = PATIENT_PATTERN, depth: int | None = None) -> Source:
    """Opens the data set at a place, or the default one.

    Args:
        location: A folder with `train/` and `test/`, an `.npz` file in MedMNIST's layout, or None for the
            downloaded data set where there is one and the synthetic images where there is none.
        patient_pattern: Regular expression; what it matches in a file's name, or its group if it has one, is the
            patient.
        depth: As `data.decode.open_gray` takes it.

    Raises:
        InputError: There is no usable data set; says every fault that was found.
    """
    return with_depth(_open_source(location, patient_regex(patient_pattern)), depth)


def check_depth(depth: int | None) -> None:
    """Refuses a depth that no image has. Raises InputError."""
    if depth is not None and not 8 <= depth <= 32:
        raise InputError(f"--depth {depth}: give how many bits of a pixel are used, from 8 to 32")


def with_depth(source: Source, depth: int | None) -> Source:
    """Gives a source the depth that its images have where they state none.

    Raises:
        InputError: There is no such depth, or the source holds no image files.
    """
    check_depth(depth)
    if depth is None:
        return source
    if source.kind != "folder":
        raise InputError(f"--depth {depth}: is for image files; the images of {source.name} have 8 bits")
    return replace(source, depth=depth)


def _open_source(location: Path | None, pattern: re.Pattern[str]) -> Source:
    if location is None:
        downloaded = download_folder()
        return read_folder(downloaded, pattern) if (downloaded / "train").is_dir() else read_synthetic()
    location = place_of(location)
    if location.is_dir():
        return read_folder(location, pattern)
    if location.suffix.lower() == ".npz":
        return read_npz(location)
    raise InputError(
        f"--data {text_of(location)}: give a folder with train/ and test/, or an .npz file in MedMNIST's layout"
    )


def open_test(
    location: Path | None,
    classes: tuple[str, ...],
    *,
    patient_pattern: str = PATIENT_PATTERN,
    depth: int | None = None,
) -> Source:
    """Opens the test images at a place, for a model that knows some classes.

    Args:
        location: A data set as `open_source` takes it, a folder with `test/` alone, or one with a folder per class.
        classes: The model's, in its order.
        patient_pattern: As `open_source` takes it.
        depth: Likewise; that of the model.

    Returns:
        A source with the split `test` alone.

    Raises:
        InputError: There are none, or not of these classes.
    """
    pattern = patient_regex(patient_pattern)
    location = None if location is None else place_of(location)
    check_depth(depth)
    # os.path says no where a folder may not be entered; what lists it says why.
    if location is not None and location.is_dir() and not os.path.isdir(location / "train"):  # noqa: PTH112
        part = "test" if os.path.isdir(location / "test") else ""  # noqa: PTH112
        root, listed = location / part, class_folders(location / part, part)
        # Where there are no class folders, what lies there instead is a hint.
        faults = [
            f"--data {text_of(location)}: {sentence}"
            for sentence in (*listed.faults, *(listed.notes if not listed.images else ()))
        ]
        if set(listed.images) != set(classes):
            present = ", ".join(listed.images) or "none"
            faults.append(
                f"--data {text_of(root)}: its class folders are {present}; the model knows {', '.join(classes)}"
                f"{hint_of_case(classes, listed.images)}"
            )
        if faults:
            raise InputError(*faults)
        every = [path for name in classes for path in listed.images[name]]
        labels = np.repeat(np.arange(len(classes)), [len(listed.images[name]) for name in classes])
        here = location.resolve()
        return Source(
            slug(here.parent.name if here.name == "test" else here.name),
            "folder",
            text_of(root),
            classes,
            {"test": _listing(root, every, labels, pattern)},
            lambda _, row: every[row],
            (*listed.notes, *frames_note(every)),
            depth=depth,
        )
    source = _open_source(location, pattern)
    source = with_depth(source, depth) if source.kind == "folder" else source
    if source.classes != classes:
        ours, theirs = ", ".join(source.classes), ", ".join(classes)
        raise InputError(f"--data {source.location}: its classes are {ours}; the model knows {theirs}")
    return replace(source, splits={"test": source.splits["test"]})


def read_folder(root: Path, pattern: re.Pattern[str]) -> Source:
    """Lists a folder in ImageFolder's layout: `<split>/<class>/**/<image>`.

    Raises:
        InputError: A split or class is missing or empty, or there is only one class.
    """
    here = text_of(root)
    try:
        top = contents(root)
    except OSError as error:
        raise InputError(f"--data {here}: cannot be read ({error.strerror})") from error
    folders = {entry.path.name: entry.path for entry in top if entry.kind == FOLDER}
    missing = [f"{split}/" for split in ("train", "test") if split not in folders]
    if missing:
        hint = hint_of_place(root, folders.values())
        raise InputError(f"--data {here}: has no folder {' and no folder '.join(missing)}{hint}")
    faults = []
    listed = {split: class_folders(folders[split], split) for split in SPLITS if split in folders}
    classes = tuple(listed["train"].images)
    if len(classes) < 2 and not listed["train"].faults:
        held = f"only the class {classes[0]}" if classes else "no class folders"
        faults.append(f"train/ holds {held}; two or more are needed, a folder each")
        faults += listed["train"].notes
    faults += [fault for folder in listed.values() for fault in folder.faults]
    faults += [
        f"the classes in {split}/ are {', '.join(folder.images) or 'none'}, in train/ {', '.join(classes)}"
        f"{hint_of_case(classes, folder.images)}"
        for split, folder in listed.items()
        if tuple(folder.images) != classes and len(classes) > 1
    ]
    faults = [f"--data {here}: {fault}" for fault in faults]
    name = slug(root.resolve().name)
    if name in synthetic.NAMES:
        faults.append(f"--data {here}: the name {name!r} belongs to the built-in synthetic images; rename the folder")
    if faults:
        raise InputError(*faults)

    paths = {split: [path for files in folder.images.values() for path in files] for split, folder in listed.items()}
    splits = {
        split: _listing(
            root,
            paths[split],
            np.repeat(np.arange(len(classes)), [len(files) for files in folder.images.values()]),
            pattern,
        )
        for split, folder in listed.items()
    }
    notes = [note for folder in listed.values() for note in folder.notes]
    if others := passed_over((entry for entry in top if entry.path.name not in listed), images=True):
        notes.insert(0, f"passed over {others} in {text_of(root.resolve().name)}, beside {'/, '.join(listed)}/")
    notes += frames_note(path for files in paths.values() for path in files)
    anonymous = sum(pattern.search(text_of(path.name)) is None for path in paths["train"])
    if anonymous:
        notes.append(
            f"{anonymous:,} of {len(paths['train']):,} training images name no patient; "
            "each counts as a patient of its own"
        )
    return Source(name, "folder", here, classes, splits, lambda split, row: paths[split][row], tuple(notes))


def read_npz(path: Path) -> Source:
    """Lists an `.npz` file in MedMNIST's layout.

    Raises:
        InputError: As `data.npz.read_arrays`, or its name is taken.
    """
    name, here, faults = slug(path.stem), text_of(path), []
    if name in synthetic.NAMES:
        faults.append(f"--data {here}: the name {name!r} belongs to the built-in synthetic images; rename the file")
    try:
        arrays = read_arrays(path)
    except InputError as error:
        raise InputError(*error.faults, *faults) from error
    if faults:
        raise InputError(*faults)
    splits = {}
    for split, images in arrays.images.items():
        names = tuple(f"{split}/{row:06d}" for row in range(len(images)))
        hashes = tuple(hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in images)
        splits[split] = Listing(names, arrays.labels[split], names, hashes)
    classes = tuple(map(str, range(arrays.classes)))
    note = "an .npz file names no patients; each image counts as a patient of its own"
    return Source(name, "npz", here, classes, splits, arrays.image, (note, *arrays.notes), sides=arrays.sides)


def read_synthetic() -> Source:
    """Lists the built-in synthetic radiographs."""
    films = {split: synthetic.films(split) for split in synthetic.COUNTS}
    splits = {
        split: Listing(
            names=tuple(f"{split}/{film.name}" for film in of_split),
            labels=np.array([film.label for film in of_split], dtype=np.int64),
            patients=tuple(film.patient for film in of_split),
            # These are in the digest, which studies remember: they keep the data set's former name.
            hashes=tuple(f"{synthetic.FORMER_NAME}-{synthetic.VERSION}-{split}-{row}" for row in range(len(of_split))),
        )
        for split, of_split in films.items()
    }
    return Source(
        synthetic.NAME,
        "synthetic",
        f"built in, version {synthetic.VERSION}",
        synthetic.CLASSES,
        splits,
        lambda split, row: Image.fromarray(synthetic.draw(films[split][row])),
        ("synthetic radiographs: scores on them say nothing about X-rays",),
        sides=(synthetic.SIZE, synthetic.SIZE),
    )


def under_name(source: Source, name: str) -> Source:
    """Gives the synthetic images the name that a study, run or model has for them; other sources stay as they are."""
    return replace(source, name=name) if source.kind == "synthetic" and name in synthetic.NAMES else source


def download_folder() -> Path:
    """Where Kaggle's data set is after `download`, whether or not it is there."""
    # Kaggle's archive holds a folder chest_xray, which gives the data set its name.
    return user_data_path("sweep") / "kaggle" / "chest_xray"


def download() -> Path:
    """Downloads Kaggle's data set (1.2 GB) and returns its folder; does nothing where it is there already.

    Raises:
        InputError: Kaggle cannot be reached, or what came is not the data set.
    """
    folder = download_folder()
    if (folder / "train").is_dir():
        return folder
    import kagglehub  # imports requests and more; only this command needs it

    try:
        kagglehub.dataset_download(KAGGLE_DATASET, output_dir=str(folder.parent))
    except Exception as error:  # kagglehub passes on whatever requests, its own client or the disk raise
        raise InputError(
            f"Kaggle's {KAGGLE_DATASET} cannot be downloaded: {error}. "
            f"Download it by hand from https://www.kaggle.com/datasets/{KAGGLE_DATASET} and unpack it to "
            f"{folder.parent}, or give its folder with --data"
        ) from error
    if not (folder / "train").is_dir():
        raise InputError(f"{folder}: what Kaggle sent has no train/; unpack the data set here by hand")
    return folder


def known_limits(source: Source) -> tuple[str, ...]:
    """Known limits of a model that learned from a data set, one sentence each without a full stop."""
    if source.kind == "synthetic":
        return ("It learned from synthetic pictures, which a program drew: its scores say nothing about X-rays",)
    own = (
        "Its test images come with the data set; another hospital, machine or age may give other scores",
        "It knows its classes and nothing else, and answers with one of them to any picture",
    )
    names = [Path(name).name for name in source.splits["train"].names]
    if all(any(kind.match(name) for name in names) for kind in KERMANY):
        return (
            "All images are of children of one to five years from one hospital, the Guangzhou Women and Children's "
            "Medical Center (Kermany et al. 2018): nothing is known about adults",
            "Its test images differ from its training images: networks lose 5 to 13 points of accuracy from validation "
            "to test, nearly all of it specificity",
            "Bacterial and viral pneumonia are one class, and other diseases are not there",
            *own,
        )
    return own


def group_of(name: str) -> str | None:
    """Reads the kind of pneumonia from the name of an image, `bacterial` or `viral`; None where it says neither."""
    match = re.match(r"person\d+_(bacteria|virus)_", Path(name).name)
    return None if match is None else {"bacteria": "bacterial", "virus": "viral"}[match[1]]


def slug(name: str) -> str:
    """Turns a name into one that MLflow takes anywhere: lower case, digits and `-`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "data"


def patient_regex(patient_pattern: str) -> re.Pattern[str]:
    """Compiles what finds patients in names. Raises InputError."""
    try:
        return re.compile(patient_pattern)
    except re.error as error:
        raise InputError(f"--patient-pattern {patient_pattern!r} is not a regular expression: {error}") from error


def _listing(root: Path, paths: list[Path], labels: np.ndarray, pattern: re.Pattern[str]) -> Listing:
    names, hashes, faults = [text_of(path.relative_to(root).as_posix()) for path in paths], [], []
    for path in paths:
        try:
            hashes.append(_hash(path))
        except OSError as error:
            faults.append(f"{text_of(path)}: cannot be read ({error.strerror})")
    if len(set(names)) < len(names):  # a name that is no text, and one that is written as that would be shown
        doubled = sorted({name for name in names if names.count(name) > 1})
        faults.append(f"{text_of(root)}: two files are called {doubled[0]}; rename one")
    if faults:
        raise InputError(*named(faults))
    return Listing(tuple(names), labels, tuple(_patient(path, pattern) for path in paths), tuple(hashes))


def _patient(path: Path, pattern: re.Pattern[str]) -> str:
    match = pattern.search(text_of(path.name))
    return match[match.lastindex or 0] if match else text_of(f"{path.parent.name}/{path.name}")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
