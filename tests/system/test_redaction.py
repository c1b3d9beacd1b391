"""A password never is in what is shown: not in URLs, not in what libraries say, not in what a command prints."""

from __future__ import annotations

import sys

import pytest

from data.faults import InputError
from sweep.stores.databases import check_database
from sweep.stores.mlflow_stores import open_client
from sweep.stores.study import stored_studies
from sweep.system.redaction import address, first_line, scrubbed, shown
from tests.helpers.servers import free_port


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://ann:hunter2@db/sweep", "postgresql://ann:***@db/sweep"),
        ("postgresql://ann@corp:hunter2@db/sweep", "postgresql://ann@corp:***@db/sweep"),  # as Azure names users
        ("postgresql+psycopg://ann:hunter%402@db:5432/sweep", "postgresql+psycopg://ann:***@db:5432/sweep"),
        ("postgresql://ann:hun/t@er:2@db/sweep", "postgresql://ann:***@db/sweep"),  # nobody encoded it
        ("postgresql://db/sweep?user=ann&password=hunter2&sslmode=require",
         "postgresql://db/sweep?user=ann&password=***&sslmode=require"),
        ("https://ann:hunter2@mlflow.example", "https://ann:***@mlflow.example"),
        ("https://ann:@mlflow.example", "https://ann:***@mlflow.example"),
        ("https://:hunter2@mlflow.example:5000/", "https://:***@mlflow.example:5000/"),
        # Nothing to hide.
        ("postgresql://ann@db:5432/sweep", None),
        ("postgresql://db:5432/sweep", None),
        ("http://127.0.0.1:5000", None),
        ("sqlite:////home/ann@work/a:b/mlflow.db", None),
        ("./mlruns", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_password(url, expected):
    assert shown(url) == (url if expected is None else expected)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://ann:hun%2Fter2@mlflow.example:5000/at/a/path", "https://mlflow.example:5000/at/a/path"),
        ("https://ann@[::1]:5000", "https://[::1]:5000"),
        ("https://mlflow.example", "https://mlflow.example"),
        ("sqlite:////ann@work/mlflow.db", "sqlite:////ann@work/mlflow.db"),
    ],
)
def test_an_address_is_one_for_a_browser(url, expected):
    assert address(url) == expected


def test_a_text_of_a_library_loses_what_the_urls_and_the_environment_hold(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "a-token")
    monkeypatch.setenv("PGPASSWORD", "a-password")
    monkeypatch.setenv("OPTUNA_STORAGE", "postgresql://ann:from%20elsewhere@db/sweep")
    text = "GET https://bob:inline@host/api: decoded hunter/2, raw hunter%2F2, a-token, a-password, from elsewhere"
    assert scrubbed(text, "https://ann:hunter%2F2@host") == (
        "GET https://bob:***@host/api: decoded ***, raw ***, ***, ***, ***"
    )


def test_of_two_passwords_the_longer_one_is_hidden_whole(monkeypatch):
    monkeypatch.setenv("PGPASSWORD", "hunter")
    assert scrubbed("hunter and hunter2", "https://ann:hunter2@host") == "*** and ***"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n one \n"), "one"),
        (ValueError(), "ValueError"),
        (ValueError("(psycopg.OperationalError) no route to db"), "no route to db"),
        (ValueError("https://ann:hunter2@host is away"), "https://ann:***@host is away"),
    ],
)
def test_the_first_line_of_an_error(error, expected):
    assert first_line(error) == expected


# Database servers -----------------------------------------------------------------------------------------------------


OPENERS = pytest.mark.parametrize(
    ("option", "opener"), [("--storage", stored_studies), ("--tracking-uri", open_client)], ids=["study", "tracking"]
)


@OPENERS
@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_a_missing_driver_of_postgresql_is_named_by_its_extra(option, opener, scheme, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)  # as where it is not installed
    with pytest.raises(InputError) as caught:
        opener(f"{scheme}://ann:hunter2@db/sweep")
    assert caught.value.faults == (
        f"{option} {scheme}://ann:***@db/sweep: PostgreSQL needs a driver: uv sync --extra postgres, "
        "in the folder of this project",
    )


def test_another_driver_that_is_missing_is_named():
    with pytest.raises(InputError, match=r"mysql://ann:\*\*\*@db/sweep: its driver is missing \(No module named"):
        check_database("--storage", "mysql://ann:hunter2@db/sweep")


@OPENERS
def test_a_database_server_that_is_away_is_named_at_once(option, opener):
    port = free_port()
    with pytest.raises(InputError) as caught:
        opener(f"postgresql://ann:hunter2@127.0.0.1:{port}/sweep")
    (sentence,) = caught.value.faults
    assert sentence.startswith(f"{option} postgresql://ann:***@127.0.0.1:{port}/sweep: cannot be opened (")
    assert "refused" in sentence
    assert "hunter2" not in sentence


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("postgresql://ann:hun@ter2@db/sweep", r"\*\*\*@db/sweep: in a password, write @ as %40"),
        ("postgresql://ann:hunter2@db:port/sweep", r"\*\*\*@db:port/sweep: cannot be opened"),
        (f"postgresql://ann:hunter2@{'a' * 64}.example/sweep", r"\.example/sweep: cannot be opened"),
        ("postgresql://ann:hun/@ter2@db/sweep", r"\*\*\*@db/sweep: in a password, write @ as %40"),
        ("postgresql://ann:hun@ter2/@db/sweep", r"\*\*\*@db/sweep: in a password, write @ as %40"),
    ],
    ids=["at sign", "port", "long host", "slash, at sign", "at sign, slash"],
)
def test_a_url_that_cannot_be_right_is_named(url, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        stored_studies(url)
    assert "ter2" not in str(caught.value)


@OPENERS
def test_a_database_server_says_what_it_refuses(option, opener, postgres):
    for url, said in (
        (
            postgres.url("postgres").replace(postgres.password, "hunter2"),
            'password authentication failed for user "sweep"',
        ),
        (postgres.url("none"), 'database "none" does not exist'),
    ):
        with pytest.raises(InputError) as caught:
            opener(url)
        (sentence,) = caught.value.faults
        assert sentence.startswith(f"{option} {shown(url)}: cannot be opened (")
        assert said in sentence
        assert "hunter2" not in sentence
        assert postgres.password not in sentence


def test_a_command_ends_with_one_sentence_and_no_password(postgres, typed, tmp_path):
    code, output, error = typed(tmp_path, "doctor", "--storage", postgres.url("none"))
    assert (code, output) == (2, "")
    assert error.startswith(f"error: --storage postgresql://sweep:***@127.0.0.1:{postgres.port}/none: cannot be opened")
    assert len(error.splitlines()) == 1
    assert postgres.password not in error
    assert list(tmp_path.iterdir()) == []
