"""On a real Kubernetes of one node, which the tests start: our manifests, a scan as a Job, a worker's pod deleted in mid-scan."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path

import dask
import numpy as np
import polars as pl
import pytest
import xarray as xr
import yaml
from dask_kubernetes.operator import make_cluster_spec
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.cluster.kubernetes import _pods
from tests.support.oracle import expected_frame

pytestmark = pytest.mark.kubernetes

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "cluster" / "kubernetes"
PROGRAMS = ROOT / ".cluster" / "kubernetes" / "bin"
NODE, S3_PORT = "10.97.0.1", 18433
ENDPOINT = f"http://{NODE}:{S3_PORT}"
KEYS = {"AWS_ACCESS_KEY_ID": "ADMINKEY", "AWS_SECRET_ACCESS_KEY": "adminsecret", "AWS_REGION": "us-east-1"}
INSIDE = ["ip", "netns", "exec", "rainbear-k8s"]  # where a command is in the node's network
PLACE = {"AWS_ENDPOINT_URL": ENDPOINT, "AWS_ALLOW_HTTP": "true"}
c = pl.col


def bash(*words, **options):
    done = subprocess.run(
        ["bash", *map(str, words)], check=False, capture_output=True, text=True, timeout=300, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def kubernetes(tmp_path_factory):
    """A node whose images are the host's own Python; the folder of its state."""
    assert (PROGRAMS / "kubelet").exists(), "run `make test-kubernetes`, which builds Kubernetes first"
    images = tmp_path_factory.mktemp("images")
    make = [sys.executable, str(KUBERNETES / "image.py")]
    subprocess.run(
        [*make, images / "pause.tar", "localhost/pause:1", "/usr/bin", f"{PROGRAMS / 'pause'}:/pause"], check=True
    )
    path = f"{Path(sys.executable).parent}:/usr/bin"
    subprocess.run([*make, images / "rainbear.tar", "docker.io/library/rainbear-dask:1", path], check=True)
    folder = tmp_path_factory.mktemp("node", numbered=False)
    try:
        bash(KUBERNETES / "up.sh", PROGRAMS, images, folder)
        yield folder
    finally:
        bash(KUBERNETES / "down.sh", folder)


@pytest.fixture(scope="module")
def run(kubernetes):
    """Runs a command in the node's network, with the cluster's names."""

    def inside(*words, **options):
        environment = os.environ | {"KUBECONFIG": str(kubernetes / "kubeconfig")}
        return subprocess.run(
            [*INSIDE, *map(str, words)],
            check=False,
            capture_output=True,
            text=True,
            timeout=180,
            env=environment,
            **options,
        )

    return inside


@pytest.fixture(scope="module")
def kubectl(run):
    def command(*words, **options):
        done = run("kubectl", *words, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return command


@pytest.fixture(scope="module")
def operator(kubernetes, kubectl):
    """Dask's operator as a process of the host, and its kinds of objects."""
    kubectl(
        "apply",
        "--server-side",
        "-f",
        files("dask_kubernetes") / "operator/deployment/helm/dask-kubernetes-operator/crds",
    )
    command = [*INSIDE, str(Path(sys.executable).with_name("kopf")), "run", "--all-namespaces"]
    modules = ["-m", "operator_on_old_server", "-m", "dask_kubernetes.operator.controller"]
    environment = os.environ | {"KUBECONFIG": str(kubernetes / "kubeconfig"), "PYTHONPATH": str(KUBERNETES)}
    log = kubernetes / "log" / "operator.log"
    with (
        log.open("w") as out,
        subprocess.Popen([*command, *modules], env=environment, stdout=out, stderr=subprocess.STDOUT) as process,
    ):
        yield log
        process.terminate()


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> str:
    """A store of 1,920 chunks as a folder."""
    sizes = {"time": 480, "lat": 12, "lon": 20}
    values = np.random.default_rng(0).normal(280, 10, tuple(sizes.values())).astype("f4")
    coords = {"lat": np.linspace(82.5, -82.5, 12), "lon": np.arange(20) * 18.0}
    path = str(tmp_path_factory.mktemp("local") / "field.zarr")
    xr.Dataset({"t2m": (tuple(sizes), values)}, coords).to_zarr(
        path, encoding={"t2m": {"chunks": (1, 12, 5)}}, zarr_format=3, consolidated=False
    )
    return path


@pytest.fixture(scope="module")
def bucket(local, run, tmp_path_factory):
    """An S3 server in the same network, and the store in its bucket; what brings objects of the bucket here."""
    folder = tmp_path_factory.mktemp("s3")
    environment = os.environ | {"S3_DIR": str(folder), "S3_PORT": str(S3_PORT), "S3_HOST": NODE}
    inside = ["nsenter", "--net=/var/run/netns/rainbear-k8s", "bash", ROOT / "cluster/stores/s3_up.sh"]

    def copy(what: str) -> None:
        code = f"import s3fs; s3 = s3fs.S3FileSystem(); {what}"
        done = run("env", *(f"{name}={value}" for name, value in {**KEYS, **PLACE}.items()), sys.executable, "-c", code)
        assert done.returncode == 0, done.stderr

    subprocess.run(inside, check=True, env=environment, timeout=120)
    try:
        copy(f"s3.mkdir('bucket'); s3.put({local!r}, 'bucket/field.zarr', recursive=True)")
        yield lambda name, path: copy(f"s3.get('bucket/{name}', {str(path)!r})")
    finally:
        bash(ROOT / "cluster/stores/stop.sh", folder)


def manifest(name: str) -> list[dict]:
    return list(yaml.safe_load_all((KUBERNETES / f"{name}.yaml").read_text()))


def at_home(pod: dict, **environment: str) -> None:
    """Fit a pod to this machine: programs from the host instead of an image, and fewer processors than two pods want."""
    folders = {str(Path(folder)) for folder in ("/etc/ssl", "/usr", sys.prefix, sys.base_prefix, ROOT)}
    mounts = [{"name": f"host{n}", "mountPath": folder, "readOnly": True} for n, folder in enumerate(sorted(folders))]
    pod.setdefault("volumes", []).extend(
        {"name": mount["name"], "hostPath": {"path": mount["mountPath"]}} for mount in mounts
    )
    pod["automountServiceAccountToken"] = False
    pod["terminationGracePeriodSeconds"] = 1  # nothing is lost with it, and the next test waits for it
    (container,) = pod["containers"]
    container.setdefault("volumeMounts", []).extend(mounts)
    container["resources"] = {"requests": {"cpu": "100m"}, "limits": {"memory": "2Gi"}}
    container["env"] = [*(container.get("env") or []), *({"name": n, "value": v} for n, v in environment.items())]


@pytest.fixture(scope="module")
def access(kubectl):
    """Our account, role and secret, with the keys of this bucket."""
    things = manifest("access")
    (secret,) = (thing for thing in things if thing["kind"] == "Secret")
    secret["stringData"] = {**KEYS, **PLACE}
    kubectl("apply", "-f", "-", input=yaml.safe_dump_all(things))


@pytest.fixture
def cluster(kubectl, operator, access):
    """The Dask cluster of our manifest, once its two workers are ready."""
    (thing,) = manifest("cluster")
    for part in ("scheduler", "worker"):
        at_home(thing["spec"][part]["spec"])
    kubectl("apply", "-f", "-", input=yaml.safe_dump(thing))
    wait_until(lambda: len(workers(kubectl)) == 2, lambda: kubectl("describe", "pods") + operator.read_text()[-3000:])
    yield
    kubectl("delete", "daskcluster", "rainbear", "--wait=true")
    wait_until(lambda: not workers(kubectl))


def workers(kubectl) -> list[str]:
    """Names of worker pods that run."""
    query = ["-l", "dask.org/component=worker", "--field-selector=status.phase=Running", "-o", "name"]
    return kubectl("get", "pods", *query).split()


def wait_until(condition, told=lambda: "", seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.2)


@pytest.mark.usefixtures("cluster")
def test_a_job_scans_a_bucket_while_a_worker_is_deleted(kubectl, bucket, local, tmp_path):
    (job,) = manifest("job")
    pod = job["spec"]["template"]["spec"]
    at_home(pod, DASK_RAINBEAR_DASK__TASK_BYTES="1")  # a task for each chunk
    (container,) = pod["containers"]
    fitted = {"s3://bucket/sst.zarr": "s3://bucket/field.zarr", "sst > 300": "t2m > 280"}
    container["args"] = [fitted.get(word, word) for word in container["args"]] + ["--progress"]
    kubectl("apply", "-f", "-", input=yaml.safe_dump(job))

    def log():
        return (
            kubectl("logs", "-l", "job-name=rainbear-scan", "--tail=-1")
            if kubectl("get", "pods", "-l", "job-name=rainbear-scan", "-o", "name")
            else ""
        )

    def status():
        return json.loads(kubectl("get", "job", "rainbear-scan", "-o", "json"))["status"]

    def under_way():
        with contextlib.suppress(AssertionError):  # its container is not there yet
            return re.search(r"\b[1-9]\d{2,}/1920", log()) is not None

    def told():
        return str(status()) + kubectl("logs", "-l", "job-name=rainbear-scan", "--tail=30")

    wait_until(under_way, told)
    before = set(workers(kubectl))
    kubectl("delete", min(before), "--grace-period=0", "--force")
    assert status().get("succeeded") is None  # the scan was not over
    wait_until(lambda: status().get("succeeded") == 1, told)
    wait_until(lambda: len(workers(kubectl)) == 2 and set(workers(kubectl)) != before)

    bucket("warm.parquet", tmp_path / "warm.parquet")
    with dask.config.set({"rainbear-dask.task-bytes": 1}):
        here = rd.scan_zarr(local).filter(c.t2m > 280).collect()
    actual = pl.read_parquet(tmp_path / "warm.parquet")
    assert_frame_equal(actual, here)
    assert_frame_equal(actual, expected_frame(local).filter(c.t2m > 280), check_row_order=False)
    print(kubectl("get", "daskcluster,job,pods", "-o", "wide"), log()[-300:], actual.shape)
    kubectl("delete", "job", "rainbear-scan")


@pytest.fixture
def scan(run, kubectl, operator, access, bucket, tmp_path):
    """Runs the command with `--cluster kubernetes`: its words and environment, with pods that are fitted to this machine."""
    given = manifest("dask")[0]
    with dask.config.set(dask.config.merge(dask.config.config, given)):
        spec = _pods(make_cluster_spec, 2)
    for part in ("scheduler", "worker"):
        at_home(spec["spec"][part]["spec"], **PLACE, AWS_REGION="us-east-1")
    pods = tmp_path / "pods.yaml"
    environment = {
        **KEYS,
        **PLACE,
        "PYTHONPATH": f"{KUBERNETES}:{ROOT}",
        "DASK_RAINBEAR_DASK__SMALL_PLAN_BYTES": "0",
        "DASK_RAINBEAR_DASK__TASK_BYTES": "1",
        "DASK_KUBERNETES__CUSTOM_CLUSTER_SPEC": pods,
    }
    code = "import sys, operator_on_old_server; from rainbear_dask.cli.parser import main; sys.exit(main())"

    def command(*words, image=None):
        for part in ("scheduler", "worker"):
            (container,) = spec["spec"][part]["spec"]["containers"]
            container["image"] = image or container["image"]
        pods.write_text(yaml.safe_dump(spec))
        return [
            "env",
            *(f"{name}={value}" for name, value in environment.items()),
            *(sys.executable, "-W", "ignore", "-c", code, "scan", "s3://bucket/field.zarr"),
            *("--cluster", "kubernetes", *map(str, words)),
        ]

    yield command
    wait_until(lambda: all(kubectl("get", kind, "-o", "name") == "" for kind in ("daskclusters", "pods")))


@pytest.mark.parametrize("number", ["2", "1:2"])
def test_connect_makes_a_cluster_for_one_scan_and_deletes_it(run, kubectl, scan, local, tmp_path, number):
    output = tmp_path / "rows.parquet"
    done = run(*scan("--where", "t2m > 300", "--workers", number, "--wait", "60s", "--output", output))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    expected = expected_frame(local).filter(c.t2m > 300)
    assert_frame_equal(pl.read_parquet(output), expected, check_row_order=False)
    assert kubectl("get", "daskclusters", "-o", "name") == ""


def test_pods_that_cannot_start_are_an_error_in_time(run, kubectl, scan):
    done = run(*scan("--wait", "15s", image="localhost/nowhere:1"))
    assert done.returncode == 5
    assert done.stderr.startswith("rainbear-dask: Kubernetes starts no cluster: there is no scheduler after 15 s (")
    assert "schedulerpod: Pending" in done.stderr
    assert done.stderr.count("\n") == 1
    assert kubectl("get", "daskclusters", "-o", "name") == ""


@pytest.mark.parametrize("moment", ["before its pods run", "while it scans"])
def test_ctrl_c_deletes_what_was_made(kubernetes, kubectl, scan, moment):
    image = "localhost/nowhere:1" if moment == "before its pods run" else None
    words = [*INSIDE, *scan("--progress", image=image)]
    environment = os.environ | {"KUBECONFIG": str(kubernetes / "kubeconfig")}
    seen = ""
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        os.set_blocking(process.stderr.fileno(), False)

        def under_way():
            nonlocal seen
            seen += (process.stderr.read() or b"").decode()
            if image is None:
                return re.search(r"\b[1-9]\d*/1920", seen) is not None
            return kubectl("get", "pods", "-o", "name") != ""

        wait_until(under_way, lambda: seen)
        process.send_signal(signal.SIGINT)
        os.set_blocking(process.stderr.fileno(), True)
        seen += process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130, seen
    assert "Traceback" not in seen
    assert kubectl("get", "daskclusters", "-o", "name") == ""
