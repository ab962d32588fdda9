"""No credential of a command is written: to files, to MLflow, or to the terminal."""

from __future__ import annotations

import io
import json
import stat
import string
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import example, given, settings
from hypothesis import strategies as st

from crossbench.events import CellStarted, encode
from crossbench.results import RunResult, Status, load_result, save_result
from crossbench.settings.cell_config import CellConfig
from crossbench.settings.command_line import quoted, readable_arguments
from crossbench.settings.places import conf_dir
from crossbench.settings.plan import (
    CONFIG_FILE,
    SECRETS_FILE,
    composed_config,
    load_config,
    save_config,
)
from crossbench.settings.schema import register
from crossbench.settings.stored_plan import PlannedRun, StoredPlan
from crossbench.sweeps.conduct import save_multirun
from crossbench.system.credentials import (
    hide,
    hide_argument,
    hide_config,
    is_secret_key,
)
from crossbench.system.output import GuardedStream
from crossbench.tracking.mlflow_config import flatten_params, sweep_params
from crossbench.tracking.mlflow_format import cell_tags
from tests.helpers.plans import config_of


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://alice:secret@host:80/x", "http://***@host:80/x"),
        ("postgresql://u:a/b@db", "postgresql://***@db"),
        ("http://u:p@ss@host and mail@x", "http://***@host and mail@x"),
        ("https://token@host", "https://***@host"),
        ("alice:secret@host:50051", "***@host:50051"),
        ("http://h/?token=abc&b=1", "http://h/?token=***&b=1"),
        ("http://h/?a=1&password=x#top", "http://h/?a=1&password=***#top"),
        ("s3://b/k?X-Amz-Signature=0f&X-Amz-Date=1", "s3://b/k?X-Amz-Signature=***&X-Amz-Date=1"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("{'authorization': 'Basic YTpi'}", "{'authorization': ***}"),
        ('{"api_key": "a b", "n": 1}', '{"api_key": ***, "n": 1}'),
        ("give server.token=abc (or not)", "give server.token=*** (or not)"),
        ("PGPASSWORD='a b' psql", "PGPASSWORD=*** psql"),
    ],
)
def test_credentials_are_recognised_by_their_form(text: str, shown: str) -> None:
    assert hide(text) == shown
    assert hide(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "batch=8 max_tokens=512 pad_token=[PAD] pool.cache_tokens=0 sort=signatures",
        "see https://docs.example/x, or write to a@b.example",
        "models:/NAME@champion",
        "http://alice:${oc.env:PASSWORD}@host",
        "server.token=${oc.env:TOKEN}",
        "server.token=null",
        "a wrong bearer token",
        "12:30 @ noon",
    ],
)
def test_other_texts_stay(text: str) -> None:
    assert hide(text) == text


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("tracker.uri=http://a:p w@x/y@h", "tracker.uri=http://***@h"),
        ('tracker.uri="http://a:p w@h/?token=x"', 'tracker.uri="http://***@h/?token=***"'),
        ("+server.token=a b", "+server.token=***"),
        ("--password=x", "--password=***"),
        ("tracker.uri=http://a:${oc.env:PW}@h", "tracker.uri=http://a:${oc.env:PW}@h"),
        ('tracker.token=${oc.env:PW,"x"}', "tracker.token=***"),
        ("-m", "-m"),
        ("backend=noop,onnx", "backend=noop,onnx"),
    ],
)
def test_arguments_of_commands(argument: str, shown: str) -> None:
    assert hide_argument(argument) == shown


def test_the_default_config_has_no_secret_key() -> None:
    assert [key for key in config_of().flat if is_secret_key(key)] == ["dashboard.token"]
    assert config_of().flat["dashboard.token"] is None
    document = config_of().document
    assert hide_config(document) == document


def test_credentials_do_not_change_the_identity_of_a_cell() -> None:
    """Results are stored without them, and a resumed sweep compares identities."""
    ids = {
        config_of("backend=noop", f"+backend.api_key={key}", "+model.url=http://h").cell_id
        for key in ("one", "two", "***")
    }
    assert len(ids) == 1


def test_a_secret_for_the_cell_process_is_in_a_file_of_this_user_until_it_is_read(
    tmp_path: Path,
) -> None:
    config = config_of("backend=noop", "+backend.api_key=wanted", "+tracker.token=unwanted")
    save_config(config, tmp_path)
    save_config(config, tmp_path)  # measured again, after the first process died
    assert stat.S_IMODE((tmp_path / SECRETS_FILE).stat().st_mode) == 0o600
    assert "wanted" not in (tmp_path / CONFIG_FILE).read_text("utf-8")
    assert "unwanted" not in (tmp_path / SECRETS_FILE).read_text("utf-8")
    loaded = load_config(tmp_path)
    assert loaded.value("backend.api_key") == "wanted"
    assert loaded.value("tracker.token") == "***"
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG_FILE]
    save_config(config_of("backend=noop"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [CONFIG_FILE]


CORE = st.text(string.ascii_letters + string.digits, min_size=8, max_size=12)
ANY = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=6
).filter(lambda text: "$" not in text)  # a dollar sign may begin a reference
IN_QUERY = ANY.map(lambda text: "".join(c for c in text if not c.isspace() and c not in "&#"))
FORMS = {
    "http://alice:{}@host:9/p": ANY,
    "postgresql+psycopg2://u:{}@db/runs": ANY,
    "https://{}@host/x": IN_QUERY,
    "http://host:9/x?token={}": IN_QUERY,
    "http://host:9/x?a=1&password={}&b=2": IN_QUERY,
    "s3://bucket/x?X-Amz-Date=1&X-Amz-Signature={}": IN_QUERY,
}


@st.composite
def secrets(draw: st.DrawFn) -> tuple[str, str, str]:
    """A text that no output may have, the secret that contains it, and a URI with the secret."""
    form = draw(st.sampled_from(sorted(FORMS)))
    core = "Zq7" + draw(CORE)
    secret = draw(FORMS[form]) + core + draw(FORMS[form])
    return core, secret, form.format(secret)


def written(folder: Path) -> str:
    return "\n".join(
        path.read_bytes().decode("utf-8", "replace") for path in folder.rglob("*") if path.is_file()
    )


@settings(max_examples=12, deadline=None)
@given(secrets())
@example(("Zq700000000", "@Zq700000000", "http://host:9/x?a=1&password=@Zq700000000&b=2"))
@example(("Zq700000000", "0\\Zq700000000\\", "http://host:9/x?token=0\\Zq700000000\\"))
def test_nothing_that_a_sweep_writes_has_a_credential(drawn: tuple[str, str, str]) -> None:
    check_nothing_is_written(drawn)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=300, deadline=None)
@given(secrets())
def test_nothing_that_many_sweeps_write_has_a_credential(drawn: tuple[str, str, str]) -> None:
    check_nothing_is_written(drawn)


def check_nothing_is_written(drawn: tuple[str, str, str]) -> None:
    core, secret, uri = drawn
    overrides = readable_arguments(
        [
            *("batch=2", "backend=noop", f"tracker.uri={quoted(uri)}", f"study={quoted(uri)}"),
            *(f"+backend.url={quoted(uri)}", f"+backend.api_key={quoted(secret)}"),
        ]
    )
    register()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = compose("config", overrides=overrides, return_hydra_config=True)
    config = composed_config(composed)
    error = f"no answer from {uri}: the key {secret!r} of {json.dumps(uri)} is wrong"
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_config(config, folder)
        loaded = load_config(folder)
        assert (loaded.value("backend.url"), loaded.value("backend.api_key")) == (uri, secret)
        save_multirun(composed, folder)
        arguments = tuple(map(hide_argument, overrides))
        StoredPlan(arguments, name, (config.cell_id,), (PlannedRun(0, None),)).save(folder)
        result = RunResult(Status.FAILED, config, config.cell_id, error=error, warnings=[error])
        save_result(result, folder)
        assert core not in written(folder)
        stored = load_result(folder)
        assert stored.cell_id == config.cell_id
    assert core not in str(cell_tags(stored))
    assert core not in str(flatten_params(config))
    assert core not in str(sweep_params(overrides))
    assert core not in encode(CellStarted("cell", config.texts), 0.0)
    terminal = io.StringIO()
    print(error, repr(overrides), file=GuardedStream(terminal, tuple(overrides)))
    assert core not in terminal.getvalue()
    hidden = hide_config(config.document)
    assert hide_config(hidden) == hidden
    assert CellConfig(hidden).cell_id == config.cell_id
