"""The releases and packages of Dify in the lab's upstream, as the real ones are known."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest
import yaml

from lab import registry
from lab.dify import package
from lab.upstream import dify

DEFAULT = {
    "agent_backend", "agent_ssrf_proxy", "api", "init_permissions", "local_sandbox", "nginx",
    "plugin_daemon", "redis", "sandbox", "ssrf_proxy", "web", "worker", "worker_beat",
}  # fmt: skip
PROFILES = {
    "api_websocket": "collaboration", "db_postgres": "postgresql", "db_mysql": "mysql",
    "weaviate": "weaviate", "certbot": "certbot", "qdrant": "qdrant", "pgvector": "pgvector",
}  # fmt: skip


def files(version: str) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(dify.tarball(version))) as archive:
        return {
            member.name: content.read().decode()
            for member in archive
            if (content := archive.extractfile(member))
        }


@pytest.mark.parametrize("version", dify.VERSIONS)
def test_release_is_a_tag_of_github(version: str) -> None:
    found = files(version)
    assert all(name.startswith(f"dify-{version}/docker/") for name in found)
    assert not [name for name, text in found.items() if "@VERSION@" in text or "#>=" in text]
    compose = yaml.safe_load(found[f"dify-{version}/docker/docker-compose.yaml"])
    services = compose["services"]
    assert {name for name, item in services.items() if "profiles" not in item} == DEFAULT
    assert {n: i["profiles"][0] for n, i in services.items() if "profiles" in i} == PROFILES
    published = {name: len(item["ports"]) for name, item in services.items() if "ports" in item}
    assert published == {"nginx": 2, "plugin_daemon": 1}
    assert services["api"]["env_file"][-1] == {"path": "./.env", "required": True}
    assert services["api"]["image"] == f"langgenius/dify-api:{version}"
    named = "dify_agent_local_sandbox_home" in compose["volumes"]
    assert named is (version != "1.16.1")


def test_all_images_of_the_default_profiles_are_in_the_registry() -> None:
    wanted = DEFAULT | {"api_websocket", "db_postgres", "weaviate"}
    have = {name.removeprefix("library/") for name in registry.catalogue()} | {"busybox:latest"}
    for version in dify.VERSIONS:
        compose = yaml.safe_load(files(version)[f"dify-{version}/docker/docker-compose.yaml"])
        assert {compose["services"][name]["image"] for name in wanted} <= have


def test_web_root_says_what_is_in_it(tmp_path: Path) -> None:
    dify.build(tmp_path)
    record = json.loads((tmp_path / dify.RECORD).read_text())
    for version, sha256 in record["releases"].items():
        content = (tmp_path / dify.RELEASES / f"{version}.tar.gz").read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256
        assert gzip.decompress(content)
    for plugin in record["plugins"].values():
        content = (tmp_path / plugin["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == plugin["sha256"]
        found = package.read(content)
        assert (found.identifier, found.signed) == (plugin["identifier"], True)
        # The checksum in an identifier is not the file's.
        assert plugin["sha256"] not in plugin["identifier"]


def test_repacked_package_has_no_good_signature() -> None:
    good = package.make("1.0.0")
    assert package.read(good).signed
    assert not package.read(package.make("1.0.0", signed=False)).signed
    with pytest.raises(package.BadPackageError):
        package.read(good[:-200])
