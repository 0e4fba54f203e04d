"""The files of `cluster/` that users copy: manifests against strict schemas, configurations against what they configure."""

import copy
import inspect
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import dask
import dask_jobqueue
import jsonschema
import pytest
import yaml
from dask_kubernetes.operator import KubeCluster, make_cluster_spec

from rainbear_dask.cli import parser as cli
from rainbear_dask.cluster import jobqueue as cluster
from rainbear_dask.cluster import kubernetes as kubernetes_module
from rainbear_dask.resources.settings import DEFAULTS

CLUSTER = Path(__file__).parents[2] / "cluster"
MANIFESTS = sorted((CLUSTER / "kubernetes").glob("*.yaml"))
OBJECTS = [
    pytest.param(thing, id=f"{path.stem}-{thing['kind']}")
    for path in MANIFESTS
    for thing in yaml.safe_load_all(path.read_text())
    if "kind" in thing
]
CONFIGURATIONS = sorted(CLUSTER.glob("*/dask.yaml"))
VALIDATE = Path(sys.executable).with_name("kubernetes-validate")


def dask_kinds():
    """Schemas of Dask's own kinds, as dask-kubernetes ships them, by version and kind."""
    folder = files("dask_kubernetes") / "operator/deployment/helm/dask-kubernetes-operator/crds"
    for file in folder.iterdir():
        for definition in yaml.safe_load_all(file.read_text()):
            spec = definition["spec"]
            for version in spec["versions"]:
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"].update({"apiVersion": {}, "kind": {}, "metadata": {}})
                yield (f"{spec['group']}/{version['name']}", spec["names"]["kind"]), schema


def strict(schema):
    """JSON Schema for one of Kubernetes', in which a field that is not named is an error."""
    schema = copy.deepcopy(schema)
    if schema.pop("x-kubernetes-int-or-string", False):
        return {"type": ["integer", "string"]}
    if "properties" in schema:
        schema["properties"] = {name: strict(inner) for name, inner in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            schema[name] = strict(schema[name])
    return schema


DASK_KINDS = dict(dask_kinds())


def problems(thing, folder):
    """What a strict reader of a Kubernetes object finds wrong."""
    if schema := DASK_KINDS.get((thing["apiVersion"], thing["kind"])):
        return [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(thing)]
    file = folder / "object.yaml"
    file.write_text(yaml.safe_dump(thing))
    found = subprocess.run([VALIDATE, "--strict", file], check=False, capture_output=True, text=True)
    return [] if found.returncode == 0 else [found.stdout + found.stderr]


@pytest.mark.parametrize("thing", OBJECTS)
def test_a_manifest_is_what_its_kind_is(thing, tmp_path):
    assert problems(thing, tmp_path) == []


@pytest.mark.parametrize("thing", OBJECTS)
def test_a_misspelt_field_would_be_seen(thing, tmp_path):
    inside = thing.get("spec", thing)
    assert problems(thing | {"spec" if "spec" in thing else "metdata": {**inside, "replcias": 2}}, tmp_path) != []


def test_a_wrong_type_deep_inside_would_be_seen(tmp_path):
    (thing,) = (thing for (thing,) in (param.values for param in OBJECTS) if thing["kind"] == "DaskCluster")
    wrong = copy.deepcopy(thing)
    wrong["spec"]["worker"]["spec"]["containers"][0]["ports"][0]["containerPort"] = "many"
    assert len(problems(wrong, tmp_path)) == 1


def test_the_pods_that_connect_asks_for_are_valid_and_start_what_there_is(tmp_path):
    given = yaml.safe_load((CLUSTER / "kubernetes" / "dask.yaml").read_text())
    import dask_kubernetes  # noqa: F401, PLC0415  its defaults

    with dask.config.set(dask.config.merge(dask.config.config, given)):
        spec = kubernetes_module._pods(make_cluster_spec, 3)
    assert problems(spec, tmp_path) == []
    assert spec["spec"]["worker"]["replicas"] == 3
    for part in ("scheduler", "worker"):
        (container,) = spec["spec"][part]["spec"]["containers"]
        assert container["image"] == "rainbear-dask:1"
        command = [Path(sys.executable).with_name(container["args"][0]), *container["args"][1:2], "--help"]
        assert subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", ["_start", "_wait_for_controller"])
def test_what_connect_puts_in_the_place_of_dask_kubernetes_is_still_called_there(name):
    """A private name that vanished would be overridden in vain, and only a real Kubernetes would show it."""
    ours, theirs = getattr(kubernetes_module._KubeCluster, name), getattr(KubeCluster, name)
    assert inspect.iscoroutinefunction(ours)
    assert inspect.iscoroutinefunction(theirs)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters) == ["self"]
    assert f"self.{name}(" in inspect.getsource(KubeCluster).replace(f"super().{name}(", "")


def test_what_connect_reads_of_a_cluster_of_dask_kubernetes_is_still_there():
    source = inspect.getsource(KubeCluster)
    assert "self._resource_timeout = " in source
    assert 'self._startup_component_status["cluster"] = ' in source
    assert "timeout" in inspect.signature(KubeCluster.close).parameters


def test_the_job_is_a_command_line_that_is_understood():
    job = yaml.safe_load((CLUSTER / "kubernetes" / "job.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    command, *arguments = container["args"]
    assert command == "rainbear-dask"
    assert cli._parser().parse_args(arguments).cluster == "tcp://rainbear-scheduler:8786"


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.parent.name)
def test_a_configuration_sets_only_what_there_is(path):
    import dask_kubernetes  # noqa: F401, PLC0415
    import distributed  # noqa: F401, PLC0415

    def check(given, known, where):
        for name, value in given.items():
            assert name in known, f"{where}.{name}"
            free = isinstance(known[name], dict) and not known[name]  # a mapping whose names are the user's
            if isinstance(value, dict) and not free and name != "pre-spawn-environ":
                check(value, known[name], f"{where}.{name}")

    given = yaml.safe_load(path.read_text())
    check(given.pop("rainbear-dask"), DEFAULTS, "rainbear-dask")
    check(given, dask.config.config, path.parent.name)


@pytest.mark.parametrize("system", ["slurm", "pbs", "lsf"])
def test_a_batch_system_gets_the_job_that_is_configured(system):
    given = yaml.safe_load((CLUSTER / system / "dask.yaml").read_text())
    given["jobqueue"][system]["interface"] = "lo"
    if system == "lsf":
        given["jobqueue"][system]["lsf-units"] = "mb"  # else LSF is asked
    with dask.config.set(dask.config.merge(dask.config.config, given)):
        kind = getattr(dask_jobqueue, cluster.BATCH_SYSTEMS[system])
        script = kind.job_cls("tcp://scheduler:8786", name="worker").job_script()
    expected = {
        "slurm": ["#SBATCH --cpus-per-task=4", "#SBATCH --mem=8G", "#SBATCH -t 01:00:00", "#SBATCH --requeue"],
        "pbs": ["#PBS -l select=1:ncpus=4:mem=8192MB", "#PBS -l walltime=01:00:00", "#PBS -r y"],
        "lsf": ["#BSUB -n 4", "#BSUB -M 8590", "#BSUB -W 01:00", "#BSUB -r"],
    }[system]
    for line in [*expected, "--nthreads 4", "--memory-limit 8.00GiB", "--lifetime 55m", "export POLARS_MAX_THREADS="]:
        assert line in script, script


@pytest.mark.parametrize(
    "script",
    sorted(CLUSTER.rglob("*.sh")) + sorted(CLUSTER.glob("*/scan.*")),
    ids=lambda path: f"{path.parent.name}-{path.name}",
)
def test_a_script_is_bash(script):
    done = subprocess.run(["bash", "-n", script], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
