"""Files of a release agree with each other."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RECIPE = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())
CONDA_NAMES = {"dask": "dask-core", "msgpack": "msgpack-python"}


def requirements(lines):
    """Return bounds by name of conda."""
    pairs = (re.fullmatch(r"([\w-]+) ?(.*)", line).groups() for line in lines)
    return {CONDA_NAMES.get(name, name): bound for name, bound in pairs}


def test_the_recipe_of_conda_has_the_dependencies_of_the_package():
    expected = requirements(PROJECT["project"]["dependencies"])
    expected["python"] = PROJECT["project"]["requires-python"]
    assert requirements(RECIPE["requirements"]["run"]) == expected


def test_the_recipe_of_conda_builds_with_the_same_tools():
    expected = requirements(PROJECT["build-system"]["requires"])
    host = requirements(line for line in RECIPE["requirements"]["host"] if "$" not in line)
    assert host == expected | {"pip": ""}
    (script,) = (f"{name} = {place}" for name, place in PROJECT["project"]["scripts"].items())
    assert RECIPE["build"]["python"]["entry_points"] == [script]


@pytest.mark.parametrize("workflow", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda file: file.name)
def test_workflows_call_make_targets_that_exist(workflow):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    runs = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    called = {word for run in runs for word in re.sub(r'\w+="[^"]*"|\w+=\S+', "", run).split()[1:]}
    assert all(run.startswith("make ") for run in runs)
    assert runs
    assert called <= targets


def test_a_tree_without_tags_has_a_version_before_the_first():
    assert "version" in PROJECT["project"]["dynamic"]
    assert RECIPE["context"]["version"] in PROJECT["tool"]["hatch"]["version"]["fallback-version"]


def test_extras_that_the_documentation_names_exist():
    extras = PROJECT["project"]["optional-dependencies"].keys()
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("cluster/*.md")]
    lists = [names for page in pages for names in re.findall(r"pip install '?\"?[\w.-]*\[([\w,]+)\]", page.read_text())]
    named = {name for names in lists for name in names.split(",")} - {"extra"}
    assert named
    assert named <= extras
