"""deploy/ as far as it can be checked without an engine: by schema, by linter, and against the command lines it uses."""

import configparser
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import typer
import yaml
from mlflow.cli import cli as mlflow_cli

from sweep.cli.app import app

DEPLOY = Path(__file__).parent.parent / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and path.name != ".env")
TOOLS = Path(sys.executable).parent
SECRET = re.compile(r"PASSWORD|SECRET_KEY|TOKEN$")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def text(name):
    return (DEPLOY / name).read_text(encoding="utf-8")


def joined(name):
    """A file's lines, those that end in a backslash put together."""
    return re.sub(r"\\\n\s*", " ", text(name)).splitlines()


def kubernetes(kind):
    (document,) = (each for each in yaml.safe_load_all(text("kuberay.yaml")) if each["kind"] == kind)
    return document


def sweep_commands(name):
    """What follows `python -m sweep` in a file, each to the end of its command."""
    return [re.split(r"`| &$|#|\)", line.split("-m sweep ", 1)[1])[0] for line in joined(name) if "-m sweep " in line]


def mlflow_server_in_readme():
    (line,) = (line for line in joined("README.md") if line.strip().startswith("mlflow server "))
    return set(OPTION.findall(line))


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def test_shellcheck_has_nothing_to_say():
    assert run(TOOLS / "shellcheck", DEPLOY / "slurm.sh") == (0, "")


def test_compose_file_is_valid():
    code, said = run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")
    assert code == 0, said


def test_compose_listens_on_this_machine_alone_by_default():
    ports = [port for service in yaml.safe_load(text("compose.yaml"))["services"].values() for port in service["ports"]]
    assert ports
    assert all(re.match(r"\$\{\w+:-127\.0\.0\.1\}:", port) for port in ports)


def test_env_example_names_what_compose_asks_for():
    asked = set(re.findall(r"\$\{(\w+)", text("compose.yaml")))
    assert asked == set(re.findall(r"^(\w+)=", text("env.example"), re.MULTILINE))


@pytest.mark.parametrize("kind", ["PersistentVolumeClaim", "NetworkPolicy"])
def test_kubernetes_objects_are_valid(kind):
    kubernetes_validate.validate(kubernetes(kind), kubernetes_validate.latest_version(), strict=True)


def pod_templates():
    cluster = kubernetes("RayJob")["spec"]["rayClusterSpec"]
    return [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


@pytest.mark.parametrize("index", [0, 1])
def test_pod_templates_are_valid(index):
    template = pod_templates()[index]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod", **template["metadata"]},
        "spec": template["spec"],
    }
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):  # the schema does look inside
        kubernetes_validate.validate(
            {**pod, "spec": {**pod["spec"], "volume": []}}, kubernetes_validate.latest_version(), strict=True
        )


def test_ray_job_has_what_kuberay_asks_for():
    job = kubernetes("RayJob")
    assert job["apiVersion"] == "ray.io/v1"
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert set(spec) == {
        "submissionMode", "entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec",
    }  # fmt: skip
    assert spec["submissionMode"] == "SidecarMode"
    assert set(cluster) == {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    assert set(cluster["headGroupSpec"]) == {"rayStartParams", "template"}
    for group in cluster["workerGroupSpecs"]:
        assert set(group) == {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    # What KubeRay itself refuses beside SidecarMode.
    assert pod_templates()[0]["spec"]["restartPolicy"] == "Never"


def test_only_the_orchestrators_pod_gets_the_secret_and_no_trial_runs_there():
    head, *workers = pod_templates()
    assert "secretRef" in str(head)
    assert workers
    assert "ecret" not in str(workers)
    assert kubernetes("RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_network_policy_and_the_claim_are_those_of_the_pods():
    chosen = kubernetes("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    for template in pod_templates():
        assert chosen.items() <= template["metadata"]["labels"].items()
        claims = [volume["persistentVolumeClaim"]["claimName"] for volume in template["spec"]["volumes"]]
        assert claims == [kubernetes("PersistentVolumeClaim")["metadata"]["name"]]


def test_one_version_of_ray_and_no_image_without_a_version():
    version = kubernetes("RayJob")["spec"]["rayClusterSpec"]["rayVersion"]
    assert re.findall(r"ray(?:==|:)(\d+\.\d+\.\d+)", text("Dockerfile.ray")) == [version, version]
    images = re.findall(r"^FROM (\S+)", text("Dockerfile") + text("Dockerfile.ray"), re.MULTILINE)
    images += re.findall(r"image: (?:&\w+ )?([^*\s]\S*)", text("compose.yaml") + text("kuberay.yaml"))
    assert len(images) == 5
    assert all(re.search(r":\d", image) for image in images), images


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_holds_a_secret(path):
    content = path.read_text(encoding="utf-8")
    for name, value in re.findall(r"\b([A-Z][A-Z_]*)(?:=|: )[\"']?([^\s\"']*)", content):
        if SECRET.search(name):
            assert not value or value.startswith("$"), f"{path.name}: {name}={value}"
    in_addresses = set(re.findall(r"://[^\s/:@]+:([^\s@/]+)@", content))
    assert in_addresses <= {"PASSWORD"}
    assert not re.search(r"PRIVATE KEY|kind: Secret", content)


@pytest.mark.parametrize("name", ["README.md", "slurm.sh", "kuberay.yaml"])
def test_options_of_the_sweep_exist(name):
    options = {option for parameter in typer.main.get_command(app).params for option in parameter.opts}
    commands = sweep_commands(name)
    assert commands
    used = {option for command in commands for option in OPTION.findall(command)}
    for line in joined(name):  # slurm.sh passes its options on
        if "sbatch " in line and "slurm.sh " in line:
            used |= set(OPTION.findall(line.split("slurm.sh ", 1)[1]))
    if name == "README.md":  # its sentences name some more
        used |= {option for span in re.findall(r"`(--[^`]+)`", text(name)) for option in OPTION.findall(span)}
    assert {"--engine", "--address", "--work-dir"} <= used
    assert used <= options, f"not in `python -m sweep --help`: {sorted(used - options)}"


def test_flags_of_mlflow_server_exist_and_are_the_same_in_both_places():
    known = {option for parameter in mlflow_cli.commands["server"].params for option in parameter.opts}
    command = yaml.safe_load(text("compose.yaml"))["services"]["mlflow"]["command"]
    assert command[:2] == ["mlflow", "server"]
    in_compose = {argument.split("=")[0] for argument in command[2:]}
    assert in_compose <= known
    assert mlflow_server_in_readme() == in_compose


def test_mlflow_of_the_image_is_the_projects():
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    dependencies = project["dependencies"]
    (bound,) = (each.removeprefix("mlflow") for each in dependencies if each.startswith("mlflow"))
    for name in ("Dockerfile", "README.md"):
        assert f"mlflow[auth]{bound}" in text(name)


def test_login_is_configured_without_a_password():
    settings = configparser.ConfigParser()
    settings.read_string(text("basic_auth.ini"))
    assert "admin_password" not in settings["mlflow"]
    assert "MLFLOW_AUTH_CONFIG_PATH=/etc/mlflow/basic_auth.ini" in text("Dockerfile")
