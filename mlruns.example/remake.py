"""Makes the store in this folder: small studies on the real X-rays, packed small enough for git.

    uv run python mlruns.example/remake.py STORE --data CHEST_XRAY    runs what STORE lacks of them, then packs
    uv run python mlruns.example/remake.py STORE                      packs what is there

The studies take a quarter of an hour on two cores. One worker is killed while it trains, so that there is a failed
attempt to be seen, and the one that went on from its checkpoint. No run is left out of what is packed. What is:
checkpoints, the predictions of trials that were not chosen, large networks, and seven of eight points of the machine's
load. The store itself is only read.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import metadata
from pathlib import Path

from PIL import Image, UnidentifiedImageError

HERE = Path(__file__).resolve().parent
PACKED = ("mlflow.db", "mlartifacts", "VERSION")
LIMIT = 8_000_000
LOAD_STEPS = 8  # of the points of the machine's load one in so many is packed
SWEEP = (sys.executable, "-m", "sweep")
STUDIES = (("cnn1", 8, 6), ("cnn2", 6, 6), ("cnn3", 6, 6), ("resnet50", 2, 4))  # architecture, trials, epochs
KILLED = "cnn3"  # the study that loses a worker
NETWORK = "network.pt2"
NETWORK_LIMIT = 400_000
DROPPED = ("checkpoint", "__pycache__", "registered_model_meta")
TEXT = ("", ".csv", ".html", ".json", ".jsonl", ".md", ".txt", ".yaml")
# JPEGs and PNGs in base64, longer than the example that every registered model brings.
EMBEDDED = re.compile(r"(?:/9j/|iVBORw0KGgo)[A-Za-z0-9+/]{500}")


def main() -> None:
    """Builds beside what is there, and swaps it in only if nothing is wrong with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="where sweeps ran: the folder with mlflow.db and mlruns/")
    parser.add_argument("--data", type=Path, help="the X-rays; runs the studies first")
    given = parser.parse_args()
    store = given.store.absolute()
    if given.data is not None:
        run_studies(store, given.data.absolute())
    if not (store / "mlflow.db").is_file():
        parser.error(f"{store} holds no mlflow.db")
    with tempfile.TemporaryDirectory(prefix=".remake-", dir=HERE) as place:
        packed = Path(place) / "new"
        packed.mkdir()
        absolute = absolute_path(store)
        pack(store, packed, absolute)
        limit = LIMIT - size_of(HERE / "results")  # which count too
        if size_of(packed) > limit:
            thin(packed)
        print(f"{size_of(packed) / 1e6:.1f} MB of {limit / 1e6:.1f} MB")
        if faults := sorted(set(faults_of(packed, absolute))):
            sys.exit("nothing was changed:\n" + "\n".join(faults))
        for name in PACKED:
            if (HERE / name).exists():
                (HERE / name).rename(Path(place) / name)
            (packed / name).rename(HERE / name)


def run_studies(store: Path, data: Path) -> None:
    """Runs a study of each architecture, as far as the store lacks it, and the comparison."""
    store.mkdir(parents=True, exist_ok=True)
    for arch, trials, epochs in STUDIES:
        settings = ["--image-size", "64", "--epochs", str(epochs), "--data", str(data)]
        if arch == "resnet50":
            settings += ["--weights", "none", "--search", "batch_size=32,64,128"]
        command = [*SWEEP, "--arch", arch, "--trials", str(trials), *settings]
        with subprocess.Popen(command, cwd=store) as study:
            if arch == KILLED and not (store / "killed").exists():
                kill_a_worker(study, store)
        if study.returncode != 0:
            sys.exit(f"{' '.join(command)}: failed")
    subprocess.run([*SWEEP, "compare"], cwd=store, check=True)


def kill_a_worker(study: subprocess.Popen[bytes], store: Path) -> None:
    """Kills a worker of a study once it has ended an epoch."""
    while not list((store / "checkpoints").glob(f"*{KILLED}*/*/last.safetensors")):
        if study.poll() is not None:
            sys.exit("the study ended before a worker could be killed")
        time.sleep(0.2)
    children = Path(f"/proc/{study.pid}/task/{study.pid}/children").read_text().split()
    workers = [int(child) for child in children if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]
    os.kill(workers[-1], signal.SIGKILL)
    (store / "killed").touch()


def absolute_path(store: Path) -> re.Pattern[str]:
    """What an absolute path of this machine looks like, in JSON too, where a backslash may stand before a slash."""
    paths = {store, store.resolve(), HERE, Path.home(), Path(tempfile.gettempdir()), *data_folders(store)}
    tops = "|".join(sorted({re.escape(path.parts[1]) for path in paths} | {"home", "root", "tmp"}))
    slash = r"\\?/"
    return re.compile(rf"(?:file://)?(?<![\w.-]){slash}(?:{tops})\b(?:{slash}[^\s\"'`<>()|,;:\\/]+)*{slash}?")


def data_folders(store: Path) -> list[Path]:
    """Where the images were."""
    with closing(open_read_only(store / "mlflow.db")) as db:
        sources = [json.loads(source)["uri"] for (source,) in db.execute("select dataset_source from datasets")]
    return [Path(source) for source in sources if source.startswith("/")]


def open_read_only(path: Path) -> sqlite3.Connection:
    """Opens a database that may be in use."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def pack(store: Path, packed: Path, absolute: re.Pattern[str]) -> None:
    """Copies database and artifacts, without the paths of this machine."""
    with (
        closing(open_read_only(store / "mlflow.db")) as source,
        closing(sqlite3.connect(packed / "mlflow.db", isolation_level=None)) as db,
    ):
        source.backup(db)
        roots = {place.rpartition("/")[0] for (place,) in db.execute("select artifact_location from experiments")}

        def clean(text: str) -> str:
            for root in roots:
                text = text.replace(f"{root}/", "./mlartifacts/")
            return absolute.sub(lambda found: re.split(r"[\\/]+", found[0].rstrip("\\/"))[-1], text)

        db.create_function("clean", 1, clean)
        for table, column in text_columns(db):
            db.execute(f'update "{table}" set "{column}" = clean("{column}") where typeof("{column}") = \'text\'')
        db.execute("update runs set user_id = 'sweep'")
        db.execute("update model_versions set user_id = null")
        db.execute("delete from tags where key = 'mlflow.user'")
        db.execute(f"delete from metrics where key like 'system/%' and step % {LOAD_STEPS} != 0")
        copy_artifacts(store, packed, db, clean)
        deleted = "select 1 from {} where lifecycle_stage = 'deleted'"
        purge = any(db.execute(deleted.format(table)).fetchone() for table in ("experiments", "runs", "logged_models"))
    if purge:  # only now that all locations are within the copy, since it removes files too
        uri = "sqlite:///mlflow.db"
        command = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri, "--tracking-uri", uri]
        subprocess.run(command, cwd=packed, check=True, capture_output=True)
    with closing(sqlite3.connect(packed / "mlflow.db", isolation_level=None)) as db:
        db.execute("pragma page_size = 512")  # most of MLflow's tables are empty, and take a page each
        db.execute("vacuum")
    (packed / "VERSION").write_text(f"mlflow {metadata.version('mlflow')}\n")


def text_columns(db: sqlite3.Connection) -> list[tuple[str, str]]:
    """Every table's columns, as (table, column)."""
    tables = [name for (name,) in db.execute("select name from sqlite_master where type = 'table'")]
    return [(table, row[1]) for table in tables for row in db.execute(f'pragma table_info("{table}")')]


def copy_artifacts(store: Path, packed: Path, db: sqlite3.Connection, clean: Callable[[str], str]) -> None:
    """Copies what is worth showing of the runs and models that the database names."""
    chosen = {run for (run,) in db.execute("select run_id from model_versions")}
    chosen |= {run for (run,) in db.execute("select run_uuid from tags where key = 'sweep.kind'")}

    def unwanted(folder: str, names: list[str]) -> list[str]:
        place = Path(folder)
        run = place.parent.name  # RUN/artifacts/predictions
        return [
            name
            for name in names
            if name in DROPPED
            or (name == "predictions" and run not in chosen)
            or (name == NETWORK and (place / name).stat().st_size > NETWORK_LIMIT)
        ]

    active = "where lifecycle_stage = 'active'"
    places = f"select artifact_uri from runs {active} union select artifact_location from logged_models {active}"
    for (place,) in db.execute(places).fetchall():
        if not place.startswith("./mlartifacts/"):
            sys.exit(f"{place}: not in {store / 'mlruns'}")
        source = store / "mlruns" / Path(place).relative_to("mlartifacts")
        if source.is_dir():  # a run without files has none
            shutil.copytree(source, packed / place, ignore=unwanted)
    for path in packed.rglob("*"):
        if path.suffix in TEXT and path.is_file() and path.name != "model.json":  # whose hash is registered
            text = path.read_text()
            if (cleaned := clean(text)) != text:
                path.write_text(cleaned)


def thin(packed: Path) -> None:
    """Gives figures a palette of 16 colours, which takes two fifths off them."""
    for path in packed.rglob("figures/*.png"):
        with Image.open(path) as image:
            image.convert("RGB").quantize(16, Image.Quantize.FASTOCTREE).save(path, optimize=True)


def size_of(folder: Path) -> int:
    """In bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def faults_of(packed: Path, absolute: re.Pattern[str]) -> Iterator[str]:
    """Finds what must not be published as it is."""
    if size_of(packed) > LIMIT:
        largest = sorted(packed.rglob("*"), key=lambda path: path.stat().st_size)[-5:]
        yield "too large; the largest: " + ", ".join(f"{path.name} ({path.stat().st_size:,})" for path in largest)
    people = "|".join(map(re.escape, {socket.gethostname(), getpass.getuser()} - {"localhost", "root"}))
    person = re.compile(rf"(?:^|[\s\"'>@])({people})(?:$|[\s\"'<@:])")
    for where, text in texts_of(packed):
        # Binary files have any two letters somewhere, and are searched for paths alone.
        for pattern in (absolute, EMBEDDED) if "\0" in text else (absolute, EMBEDDED, person):
            if found := pattern.search(text):
                yield f"{where}: {found[0].strip()[:100]}"
    for path in packed.rglob("*"):
        if path.is_file() and (kind := image_kind(path)) and (kind, path.parent.name) != ("PNG", "figures"):
            yield f"{path.relative_to(packed)}: a {kind} that is no figure of ours"


def texts_of(packed: Path) -> Iterator[tuple[str, str]]:
    """Everything that can be searched: the files as they are, and the texts of the database."""
    for path in packed.rglob("*"):
        if path.is_file():
            yield str(path.relative_to(packed)), path.read_bytes().decode("latin-1")
    with closing(open_read_only(packed / "mlflow.db")) as db:
        for table, column in text_columns(db):
            for (value,) in db.execute(f'select "{column}" from "{table}" where typeof("{column}") = \'text\''):
                yield f"{table}.{column}", value


def image_kind(path: Path) -> str | None:
    """The format of a picture; None for what is none."""
    try:
        with Image.open(path) as image:
            return image.format
    except UnidentifiedImageError:
        return None


if __name__ == "__main__":
    main()
