"""The Kubernetes manifest: its fields exist, its parts fit one another and the scripts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from maskrcnn_benchmark.config import cfg as defaults

REPOSITORY = Path(__file__).resolve().parent.parent
MANIFEST = REPOSITORY / "scripts" / "kubernetes" / "pytorchjob.yaml"


@pytest.fixture(scope="module")
def job():
    return yaml.safe_load(MANIFEST.read_text())


@pytest.fixture(scope="module")
def pod(job):
    return job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]


def test_the_numbers_fit(job):
    policy, worker = job["spec"]["elasticPolicy"], job["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    assert 1 <= policy["minReplicas"] <= worker["replicas"] <= policy["maxReplicas"]
    assert policy["rdzvBackend"] == "c10d"
    assert "Master" not in job["spec"]["pytorchReplicaSpecs"], "an elastic job has workers only"
    # ExitCode would take 75, told to stop, for an error that stays; Never would lose the pod.
    assert worker["restartPolicy"] == "OnFailure"


def test_volumes_and_mounts(pod):
    (container,) = pod["containers"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    assert set(mounts.values()) == set(volumes)
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert "persistentVolumeClaim" in volumes[mounts["/results"]]
    assert environment["RESULTS"].startswith("/results/")
    assert environment["DATA_DIR"] in mounts
    assert all(isinstance(value, str) for value in environment.values()), "Kubernetes takes texts alone"
    assert pod["terminationGracePeriodSeconds"] > 30


def test_the_command_runs(pod):
    (container,) = pod["containers"]
    assert container["name"] == "pytorch"
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == {"pytorchjob-port": 23456}
    assert (REPOSITORY / container["command"][-1]).is_file()
    config, *keys = container["args"]
    assert all(isinstance(word, str) for word in container["args"])
    merged = defaults.clone()
    merged.merge_from_file(str(REPOSITORY / config))
    merged.merge_from_list(keys)
    assert merged.SOLVER.SCALE_TO_WORLD is True


def unknown_fields(value, type_name, models, path="job"):
    """Fields that the clients' models do not know; ``models`` finds a class by its name."""
    if value is None or type_name in ("str", "int", "bool", "object", "float", "datetime", "IntOrString"):
        return
    if nested := re.fullmatch(r"list\[(.+)\]", type_name):
        for index, each in enumerate(value):
            yield from unknown_fields(each, nested.group(1), models, f"{path}[{index}]")
    elif nested := re.fullmatch(r"dict\(\w+, (.+)\)|dict\[\w+, (.+)\]", type_name):
        for key, each in value.items():
            yield from unknown_fields(each, nested.group(1) or nested.group(2), models, f"{path}.{key}")
    else:
        model = models(type_name)
        names = {name: attribute for attribute, name in model.attribute_map.items()}
        for key, each in value.items():
            if key not in names:
                yield f"{path}.{key} is unknown to {type_name}"
            else:
                yield from unknown_fields(each, model.openapi_types[names[key]], models, f"{path}.{key}")


@pytest.mark.extras
def test_every_field_is_known_to_the_operator(job):
    """Against the models of Kubeflow's and Kubernetes' clients, generated from their schemas."""
    operator = pytest.importorskip("kubeflow.training.models", reason="pip install kubeflow-training")
    kubernetes = pytest.importorskip("kubernetes.client.models", reason="pip install kubeflow-training")

    def models(name):
        return getattr(operator, name, None) or getattr(kubernetes, name)

    assert list(unknown_fields(job, "KubeflowOrgV1PyTorchJob", models)) == []
    wrong = {**job, "spec": {**job["spec"], "elasticPolicy": {"minReplica": 1}}}
    assert len(list(unknown_fields(wrong, "KubeflowOrgV1PyTorchJob", models))) == 1
