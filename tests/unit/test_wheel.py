"""The wheel is the whole product and nothing else, and a fleet is run from it elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import click
import pytest
import yaml

from fleet.cli import main
from fleet.declare.fleet import PRODUCT_ROOT
from tests.installed import build_wheel, lend_packages, run

FOLDER = "llm_fleet_product"
# What is of the checkout alone. Whatever else git has is the product's, and has to be there.
CHECKOUT = re.compile(
    r"\.(ci|github)/.*|\.gitignore|\.pre-commit-config\.yaml|build_backend/.*|examples/.*|lab/.*"
    r"|tests/(?!compliance/|__init__\.py).*|inventory/lab\.py|Makefile|CONTRIBUTING\.md"
    r"|SECURITY\.md|requirements\.lock|llm_fleet\.py"
)
PIPELINE = PRODUCT_ROOT / "fleet" / "operate" / "starter" / "pipeline.gitlab-ci.yml"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel, and the packages that it needs."""
    folder = tmp_path_factory.mktemp("environment")
    run([sys.executable, "-m", "venv", folder], folder)
    run([folder / "bin" / "pip", "install", "--no-deps", "--no-index", wheel], folder)
    lend_packages(folder)
    return folder


@pytest.fixture
def site(environment: Path, tmp_path: Path) -> Path:
    """An operator's directory, as `fleet init` has made it."""
    folder = tmp_path / "our-fleet"
    run([environment / "bin" / "fleet", "init", folder], tmp_path)
    return folder


def test_every_file_of_the_product_is_in_it(wheel: Path) -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=PRODUCT_ROOT, capture_output=True, text=True, check=True)
    names = {name for name in files.stdout.splitlines() if (PRODUCT_ROOT / name).is_file()}
    product = {name for name in names if not CHECKOUT.fullmatch(name)}
    assert {"deploy.py", "templates/ollama/ollama.service.j2"} < product
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if "dist-info/" not in name}
        for name in product:
            assert archive.read(f"{FOLDER}/{name}") == (PRODUCT_ROOT / name).read_bytes(), name
        [entries] = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert archive.read(entries).decode().split() == [
            "[console_scripts]", "fleet", "=", "llm_fleet:fleet",
        ]  # fmt: skip
    assert inside == {f"{FOLDER}/{name}" for name in [*product, "COMMIT"]} | {"llm_fleet.py"}


def test_it_says_of_which_commit_it_is(environment: Path) -> None:
    installed = run([environment / "bin" / "fleet", "--version"], environment).stdout
    checkout = run([Path(sys.executable).parent / "fleet", "--version"], environment).stdout
    assert installed == checkout


def test_nothing_leads_back_to_the_checkout(environment: Path) -> None:
    program = "import llm_fleet, fleet, tasks.ollama; print(llm_fleet.ROOT, fleet.__file__)"
    root, found = run([environment / "bin" / "python", "-c", program], environment).stdout.split()
    assert Path(root).is_relative_to(environment)
    assert Path(found).is_relative_to(root)
    result = run([environment / "bin" / "python", "-c", "import lab"], environment, check=False)
    assert "No module named 'lab'" in result.stderr


def test_example_fleet_is_checked_there(site: Path, environment: Path) -> None:
    fleet = environment / "bin" / "fleet"
    (site / "group_data" / "gpu.py").write_text('ollama_keep_alive = "never"\n')
    refused = run([fleet, "check", "inventory/prod.py"], site, check=False)
    assert refused.returncode == 1
    assert "gpu1.example.internal: ollama_keep_alive = 'never'" in refused.stderr
    (site / "group_data" / "gpu.py").rename(site / "group_data" / "gpus.py")
    refused = run([fleet, "check", "inventory/prod.py"], site, check=False)
    assert "group_data/gpus.py: no group is called gpus" in refused.stderr
    (site / "group_data" / "gpus.py").unlink()
    for folder, inventory in (
        (site, "inventory/prod.py"),
        (site / "inventory", "prod.py"),
        (site.parent, site / "inventory" / "prod.py"),
    ):
        lines = run([fleet, "check", inventory], folder).stdout.splitlines()
        assert [line.split()[0] for line in lines[1:-1]] == [
            "gpu1.example.internal", "gpu2.example.internal", "edge.example.internal",
        ]  # fmt: skip
        assert lines[-1] == f"secrets: {site / '.secrets' / 'prod'}"
    assert not (site / ".secrets").exists()


def test_pyinfra_runs_the_products_deploy_there(site: Path, environment: Path) -> None:
    """... with the settings that are declared there; it is refused by the deploy's own check."""
    (site / "inventory" / "here.py").write_text('gpu = [("@local", {"olama_port": 1})]\n')
    command = [environment / "bin" / "pyinfra", "-y", "--dry"]
    result = run([*command, "inventory/here.py", "deploy.py"], site, check=False)
    assert result.returncode != 0
    assert "--> llm-fleet " in result.stderr
    assert "@local: olama_port = 1: unknown setting; did you mean ollama_port?" in result.stderr
    (site / "elsewhere").mkdir()
    words = ["../inventory/here.py", "../deploy.py"]
    result = run([*command, *words], site / "elsewhere", check=False)
    assert result.returncode != 0
    assert "run pyinfra in the directory that `fleet init` has made" in result.stderr


def test_checks_of_compliance_are_found_there(site: Path, environment: Path) -> None:
    folder = run(
        [environment / "bin" / "python", "-c", "import llm_fleet; print(llm_fleet.ROOT)"], site
    ).stdout.strip()
    listed = run(
        [
            environment / "bin" / "pytest", f"{folder}/tests/compliance", "--collect-only", "-q",
            "--inventory", "inventory/prod.py", "-p", "no:cacheprovider",
        ],
        site,
    ).stdout  # fmt: skip
    assert "tests/compliance/test_gateway.py::" in listed
    assert "[edge.example.internal" in listed


def test_inventory_that_is_in_no_fleets_directory(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "hosts.py").write_text('gpu = ["gpu1"]\n')
    result = run([environment / "bin" / "fleet", "check", "hosts.py"], tmp_path, check=False)
    assert result.returncode == 1
    assert f"{tmp_path}: no fleet's directory; run this in the directory that" in result.stderr


def test_its_requirements_are_the_wheel_that_is_built(
    site: Path, environment: Path, wheel: Path
) -> None:
    """... as a file: asked by its name, an index could answer with somebody else's."""
    (site / "dist").mkdir()
    shutil.copy(wheel, site / "dist")
    command = [environment / "bin" / "pip", "install", "--dry-run", "--force-reinstall"]
    told = run([*command, "--no-deps", "-r", "requirements.txt"], site).stdout
    assert f"Processing ./dist/{wheel.name}" in told


def test_what_is_there_is_left_alone(site: Path, environment: Path) -> None:
    (site / "deploy.py").write_text("mine\n")
    (site / "config.py").unlink()
    result = run([environment / "bin" / "fleet", "init", site], site, check=False)
    assert result.returncode == 2
    assert "README.md, deploy.py, group_data/all.py" in result.stderr.replace("\n", " ")
    assert (site / "deploy.py").read_text() == "mine\n"
    assert not (site / "config.py").exists()
    result = run([environment / "bin" / "fleet", "init", site / "deploy.py"], site, check=False)
    assert result.returncode == 2
    assert "deploy.py: not a directory" in result.stderr


def commands_in(text: str) -> set[tuple[str, ...]]:
    """The commands of `fleet` that a text names: its words as far as they are in lower case."""
    found = re.findall(r"(?:^|[\s`/(])fleet((?: [a-z]+)+)", text, re.MULTILINE)
    return {tuple(words.split()) for words in found}


def test_what_the_starter_names_is_a_command(site: Path) -> None:
    for name in ("README.md", "pipeline.gitlab-ci.yml", "inventory/prod.py", ".gitignore"):
        for words in commands_in((site / name).read_text()):
            command: click.Command = main
            for word in words:
                assert isinstance(command, click.Group), (name, words)
                assert word in command.commands, (name, words)
                command = command.commands[word]
                if not isinstance(command, click.Group):
                    break


def test_pipeline_is_one_that_gitlab_reads() -> None:
    """Its stages are declared, its jobs are shell, and only `main` reaches a host."""
    pipeline = yaml.safe_load(PIPELINE.read_text())
    jobs = {name: job for name, job in pipeline.items() if name not in {"default", "stages"}}
    assert [job["stage"] for job in jobs.values()] == pipeline["stages"]
    for name, job in jobs.items():
        script = "\n".join([*pipeline["default"]["before_script"], *job["script"]])
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
        [rule] = job["rules"]
        reaches = any("pyinfra" in line or "verify" in line for line in job["script"])
        assert ("main" in rule["if"]) == reaches, name
    assert jobs["deploy"]["rules"][0]["when"] == "manual"
    assert jobs["deploy"]["resource_group"]
    assert jobs["deploy"]["interruptible"] is False


def test_githubs_does_the_same_as_gitlabs() -> None:
    """The page's file is YAML, its steps are shell, and what they run is what is tested."""
    page = (PRODUCT_ROOT / "docs" / "operating" / "pipeline.md").read_text()
    [text] = re.findall(r"(?ms)^```yaml\n(.*?)^```", page)
    steps = yaml.safe_load(text)["jobs"]["deploy"]["steps"]
    scripts = [step["run"] for step in steps if "run" in step]
    for script in scripts:
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
        assert "${{" not in script, "a secret in the text of a script"
    gitlab = yaml.safe_load(PIPELINE.read_text())
    wanted = [line for job in ("check", "deploy", "prove") for line in gitlab[job]["script"]]
    assert set(wanted) <= set("\n".join(scripts).splitlines())


@pytest.mark.slow
def test_installed_with_all_that_it_needs(wheel: Path, tmp_path: Path) -> None:
    """As an operator does it: the packages of an index, and the wheel in a folder."""
    run([sys.executable, "-m", "venv", tmp_path / "first"], tmp_path)
    pip = tmp_path / "first" / "bin" / "pip"
    run([pip, "install", "--quiet", wheel], tmp_path)
    run([tmp_path / "first" / "bin" / "fleet", "init", "site"], tmp_path)
    site = tmp_path / "site"
    (site / "dist").mkdir()
    shutil.copy(wheel, site / "dist")
    before = yaml.safe_load(PIPELINE.read_text())["default"]["before_script"]
    run(["sh", "-ec", "\n".join(before)], site)
    checked = run([site / ".venv" / "bin" / "fleet", "check", "inventory/prod.py"], site)
    assert "gpu1.example.internal" in checked.stdout
    dry = [site / ".venv" / "bin" / "pyinfra", "--dry", "inventory/prod.py", "deploy.py"]
    assert "gpu1.example.internal: " in run(dry, site, check=False).stderr
