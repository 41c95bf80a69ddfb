"""The plain manifests of ``deploy/``, read as kustomize would put them together."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
Spec = dict[str, Any]


@cache
def documents(folder: Path) -> list[Spec]:
    """Every object of a kustomization, those it builds on included. Not to be changed."""
    return list(_documents(folder))


def _documents(folder: Path) -> Iterator[Spec]:
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(kustomization) == {"apiVersion", "kind", "resources"}
    for name in kustomization["resources"]:
        path = (folder / name).resolve()
        if path.is_dir():
            yield from _documents(path)
        else:
            yield from (each for each in yaml.safe_load_all(path.read_text()) if each)


def rules(objects: list[Spec], account: str, of: str) -> list[Spec]:
    """What roles allow a service account, each rule with its ``namespace`` ("": everywhere)."""
    found = []
    for binding in objects:
        if not binding["kind"].endswith("RoleBinding"):
            continue
        [subject] = binding["subjects"]
        if (subject["kind"], subject["name"], subject["namespace"]) != (
            "ServiceAccount",
            account,
            of,
        ):
            continue
        namespace = binding["metadata"].get("namespace", "")
        reference = binding["roleRef"]
        [role] = [
            each
            for each in objects
            if each["kind"] == reference["kind"] and each["metadata"]["name"] == reference["name"]
        ]
        assert role["metadata"].get("namespace", "") == namespace
        found += [rule | {"namespace": namespace} for rule in role["rules"]]
    return found


def pods(objects: list[Spec]) -> Iterator[tuple[str, Spec]]:
    """Every pod's template, with the name of what has it."""
    for each in objects:
        name = f"{each['kind']}/{each['metadata']['name']}"
        spec = each.get("spec") or {}
        if each["kind"] in ("Deployment", "DaemonSet"):
            yield name, spec["template"]
        elif each["kind"] == "RayCluster":
            yield f"{name}/head", spec["headGroupSpec"]["template"]
            for group in spec["workerGroupSpecs"]:
                yield f"{name}/{group['groupName']}", group["template"]
