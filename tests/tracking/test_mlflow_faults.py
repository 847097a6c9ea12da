"""A real MLflow server behind a real proxy that is slow, fails, cuts or wants a password: nothing is lost or doubled."""

import base64
import os
import random
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

from clipbench.commands import push_pull, session
from clipbench.core.experiment_name import near_name
from clipbench.tracking.invocation import Invocation
from clipbench.tracking.mirror import Mirror
from clipbench.tracking.mirror_process import NICE
from tests.cli_helpers import environment, invoke, shell, table, train, until, write
from tests.http_proxy import proxy
from tests.mlflow_server import Server
from tests.tracking.test_mlflow_client import Sent

PASSWORD, TOKEN = "correct-horse", "battery/staple+token"


@pytest.fixture
def named(request, tmp_path):
    """The results folder of an experiment that was trained without MLflow, and its name, which no other test uses."""
    name = near_name(request.node.name)
    path, results = write(tmp_path, name=name, seeds=2), tmp_path / "results"
    train(path, results)
    return results, name


def push(results, name, uri):
    return invoke("push", name, "--results", results, "--tracking-uri", uri)


def sometimes(fault, share):
    """A fault of a share of all requests."""
    draw = random.Random(0)
    return lambda number, path: fault if draw.random() < share else ""


def assert_sent_once(server, name, trials=8):
    sent = Sent(server.uri, name)  # it checks that no trial has two runs
    assert len(sent.children) == trials
    assert {run.info.status for run in [*sent.children.values(), *sent.parents]} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in sent.children.values()} <= {
        run.info.run_id for run in sent.parents
    }


def assert_pushed_and_pulled(results, name, uri, tmp_path):
    """The tables of a copy that went through MLflow are those of the results."""
    assert push(results, name, uri).exit_code == 0
    pulled = invoke("pull", name, "--results", tmp_path / "copy", "--tracking-uri", uri)
    assert pulled.exit_code == 0, pulled.stderr
    for folder in (results, tmp_path / "copy"):
        assert invoke("report", name, "--results", folder).exit_code == 0
    assert table(results / name).equals(table(tmp_path / "copy" / name))


@pytest.mark.parametrize(("fault", "share"), [("lost", 0.25), pytest.param("cut", 0.15, marks=pytest.mark.slow)])
def test_answers_that_are_lost_lose_and_double_nothing(named, server, fault, share):
    results, name = named
    with proxy(server.port, fault=sometimes(fault, share)) as between:
        said = push(results, name, between.uri)
    assert said.exit_code == 0 and said.stdout.startswith(f"{name}: 8 trials"), said.stderr
    assert_sent_once(server, name)


@pytest.mark.slow
def test_a_server_that_answers_with_errors_is_given_up_and_push_completes(named, server, tmp_path):
    results, name = named
    with proxy(server.port, fault=lambda number, path: "error") as between:
        said = push(results, name, between.uri)
    assert said.exit_code == 1 and said.stderr.count("the server answers with error 500") == 1
    assert f"Sending what is missing to MLflow at {between.uri} (stops after 60 s without an answer)" in said.stderr
    assert f"`clipbench push {name}` sends the rest" in said.stderr and "Traceback" not in said.stderr
    assert_pushed_and_pulled(results, name, server.uri, tmp_path)
    assert_sent_once(server, name)


def test_a_server_that_does_not_answer_is_given_up_after_the_time_that_is_said(named, server, monkeypatch):
    results, name = named
    monkeypatch.setattr(push_pull, "PATIENCE", 4.0)
    with proxy(server.port, delay=30.0) as between:
        began = time.monotonic()
        said = push(results, name, between.uri)
    assert said.exit_code == 1 and time.monotonic() - began < 20
    assert f"{name}: MLflow at {between.uri}: no answer for 4 s. Nothing is lost" in said.stderr


@pytest.mark.slow
def test_a_server_that_answers_slowly_gets_all_and_the_progress_is_said(named, server, monkeypatch):
    results, name = named
    monkeypatch.setattr("clipbench.commands.progress.LINE_EVERY", 1.0)
    with proxy(server.port, delay=0.3) as between:
        said = push(results, name, between.uri)
    assert said.exit_code == 0 and "Sending 8 trials to MLflow" in said.stderr
    assert "0 of 8 trials" in said.stderr and "8 of 8 trials" in said.stderr
    assert_sent_once(server, name)


def test_a_server_that_knows_nothing_of_models_is_enough(named, server, tmp_path):
    """Models came with MLflow 3, whose client asks for them also where artifacts are listed."""
    with proxy(server.port, fault=lambda number, path: "absent" * ("logged-models" in path)) as between:
        assert_pushed_and_pulled(*named, between.uri, tmp_path)


@pytest.mark.slow
def test_a_server_of_mlflow_2_is_enough(named, tmp_path):
    python = tmp_path / "old" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "old"], check=True)
    install = [python, "-m", "pip", "install", "--quiet", "mlflow==2.22.0", "sqlalchemy<2.1"]
    if subprocess.run(install, check=False, capture_output=True).returncode:
        pytest.skip("MLflow 2.22 cannot be installed here")
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server", python)
    server.start()
    try:
        assert_pushed_and_pulled(*named, server.uri, tmp_path)
    finally:
        server.kill()


def seconds_of(pid):
    """The time that a process has computed."""
    with open(f"/proc/{pid}/stat") as file:
        return sum(map(int, file.read().rpartition(")")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["error", "cut", "slow", "refused"])
def test_a_server_with_a_fault_takes_less_than_two_percent_of_a_core_from_training(named, server, fault):
    """The time of a training cannot be measured so finely; what the process beside it computes can."""
    results, name = named
    with proxy(server.port, fault=lambda number, path: fault, delay=10.0 * (fault == "slow")) as between:
        uri = "http://127.0.0.1:9" if fault == "refused" else between.uri
        mirror = Mirror(results / name, name, uri, results / "mlartifacts", Invocation("run"))
        pid = mirror._process.pid
        until(lambda: (mirror.state.problem or between.number) and os.getpriority(os.PRIO_PROCESS, pid) == NICE)
        time.sleep(2.0)
        before = seconds_of(pid)
        time.sleep(10.0)
        assert seconds_of(pid) - before < 0.2
        began = time.monotonic()
        state = mirror.finish(patience=2.0, most=4.0)
        assert state.problem and time.monotonic() - began < 6.0


def test_the_end_of_a_run_waits_for_a_limited_time_that_is_said(server, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "MOST_WAIT", 3.0)
    path = write(tmp_path, name="limited", seeds=1)
    with proxy(server.port, delay=1.5) as between:
        said = invoke("run", path, "--results", tmp_path / "r", "--tracking-uri", between.uri)
    assert said.exit_code == 0 and "Written:" in said.stdout
    assert "Sending 4 trials to MLflow, at most 3 s (Ctrl-C: send them later)" in said.stderr
    assert "not done after 3 s. Nothing is lost: `clipbench push limited` sends the rest." in said.stderr


def basic(headers):
    wanted = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    given = headers.get("Authorization", "")
    return None if given == f"Basic {wanted}" else f"You said {given}, and not {wanted} ({PASSWORD})"


def bearer(headers):
    given = headers.get("Authorization", "")
    return None if given == f"Bearer {TOKEN}" else f"You said {given}"


CREDENTIALS = {
    "in the URI": (basic, "me:{}@", {}),
    "in variables": (basic, "", {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "{}"}),
    "a token": (bearer, "", {"MLFLOW_TRACKING_TOKEN": "{}"}),
}


def assert_hidden(secret, tmp_path, *said):
    """Neither what was printed nor any file has a secret, plain or as it is sent."""
    forms = [secret, base64.b64encode(f"me:{secret}".encode()).decode()]
    texts = [text.encode() for one in said for text in (one.stdout, one.stderr)]
    texts += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [form for form in forms for text in texts if form.encode() in text]


@pytest.mark.slow
@pytest.mark.parametrize("where", CREDENTIALS)
def test_credentials_work_and_are_never_shown_or_stored(where, server, tmp_path):
    check, in_uri, variables = CREDENTIALS[where]
    secret = TOKEN if check is bearer else PASSWORD
    name = f"secret-{where.replace(' ', '-')}"
    path, results = write(tmp_path, name=name, seeds=1), tmp_path / "results"
    with proxy(server.port, check=check) as between:

        def command(what, given, secret):
            uri = between.uri.replace("://", f"://{in_uri.format(secret)}")
            known = {variable: value.format(secret) for variable, value in variables.items()}
            return shell(what, given, "--results", results, "--tracking-uri", uri, env=environment() | known)

        ran, wrong, pulled = (
            command("run", path, secret),
            command("push", name, "wrong-one"),
            command("pull", name, secret),
        )
    assert ran.returncode == 0 and "Nothing is lost" not in ran.stderr, ran.stderr
    assert_sent_once(server, name, 4)
    assert wrong.returncode == 1 and "the server does not accept the user name, password or token" in wrong.stderr
    assert pulled.returncode == 0, pulled.stderr
    for given in (secret, "wrong-one"):
        assert_hidden(given, tmp_path, ran, wrong, pulled)
        database = server.folder / "mlflow.db"
        assert given.encode() not in database.read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(find_spec("flask_wtf") is None, reason="needs mlflow[auth]")
def test_the_passwords_of_mlflow_itself_work(tmp_path, with_database):
    server = Server(with_database(tmp_path / "server"))
    settings = tmp_path / "auth.ini"
    settings.write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{tmp_path}/auth.db\nadmin_username = me\n"
        f"admin_password = {PASSWORD}\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    server.start("--app-name", "basic-auth", MLFLOW_AUTH_CONFIG_PATH=str(settings), MLFLOW_FLASK_SERVER_SECRET_KEY="k")
    try:
        path, results = write(tmp_path, seeds=1), tmp_path / "results"
        uri = server.uri.replace("://", f"://me:{PASSWORD}@")
        ran = shell("run", path, "--results", results, "--tracking-uri", uri)
        wrong = shell("push", "small", "--results", results, "--tracking-uri", uri.replace(PASSWORD, "wrong-one"))
        assert ran.returncode == 0 and "Nothing is lost" not in ran.stderr, ran.stderr
        assert wrong.returncode == 1 and "does not accept the user name, password or token" in wrong.stderr
        assert len(Sent(uri, "small").children) == 4
        for secret in (PASSWORD, "wrong-one"):
            assert_hidden(secret, results, ran, wrong)
    finally:
        server.kill()
