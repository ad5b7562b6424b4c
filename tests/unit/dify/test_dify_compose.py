"""A release with our values: its files, its images, its passwords."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dify_compose import Release, Tagged, image_problem, seed, to_yaml
from tests.unit.dify.dify_host import OLD, Host


def test_yaml_is_what_was_meant() -> None:
    text = to_yaml({"a": {"b": [1, "x: y"], "c": {"d": "#"}}, "e": Tagged("!reset", [])})
    assert "e: !reset []\n" in text
    assert yaml.safe_load(text.replace("!reset ", "")) == {
        "a": {"b": [1, "x: y"], "c": {"d": "#"}},
        "e": [],
    }


@pytest.mark.parametrize(
    ("image", "loose"),
    [
        ("nginx:latest", True),
        ("nginx", True),
        ("postgres:15-alpine", True),
        ("localhost:5000/nginx", True),
        ("langgenius/dify-api:1.16.1", False),
        ("langgenius/dify-plugin-daemon:0.6.10-local", False),
        ("nginx:latest@sha256:" + "ab" * 32, False),
    ],
)
def test_tags_that_move(image: str, loose: bool) -> None:
    assert (image_problem({"x": {"image": image}}) is not None) == loose


def test_values_take_the_places_of_the_examples(tmp_path: Path) -> None:
    pristine = tmp_path / "opt" / "1.16.1" / "dify-1.16.1" / "docker"
    pristine.mkdir(parents=True)
    (pristine / "docker-compose.yaml").write_text("services: {}\n")
    (pristine / ".env.example").write_text("# words=\nSECRET_KEY=old\nKEEP=1\nSECRET_KEY=public\n")
    (tmp_path / "values").write_text("SECRET_KEY=new\nOURS=2\n")
    config = {
        "root": str(tmp_path / "root"),
        "pristine": str(tmp_path / "opt"),
        "values": str(tmp_path / "values"),
    }
    assert Release(config, "1.16.1").env_text() == (
        "# words=\nSECRET_KEY=new\nKEEP=1\nSECRET_KEY=new\n# Added by llm-fleet.\nOURS=2\n"
    )


def test_new_ca_makes_the_daemon_anew(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its file is replaced, and the mount of a container that runs keeps the old one.
    release = Release(host.config(OLD) | {"ca": "/etc/x.pem"}, OLD)
    seen = []
    for text in ("one CA", "another CA"):
        monkeypatch.setattr(Release, "_bundle_text", lambda _, text=text: text)
        ours = release._service_override("plugin_daemon", {"plugin_daemon": {"image": "x"}})
        seen.append(ours["environment"])
    assert seen[0] != seen[1]


def mounts(*sources: str) -> dict[str, Any]:
    listed = [{"type": "bind", "source": source, "target": f"/{source[-3:]}"} for source in sources]
    return {"image": "x", "volumes": [*listed, {"type": "volume", "source": "a", "target": "/v"}]}


def test_folder_in_which_another_mount_begins_is_not_written(host: Host) -> None:
    """A link in the inner one's place would show a container whatever it leads to."""
    services = {
        "nginx": mounts(
            "/d/volumes/certbot/conf/live", "/d/volumes/certbot/conf", "/d/volumes/www"
        ),
        "plugin_daemon": mounts("/d/volumes/plugin_daemon"),
        "outer": mounts("/d/volumes"),
    }
    release = Release(host.config(OLD), OLD)
    held = {
        name: [m["source"] for m in release._service_override(name, services).get("volumes", [])]
        for name in services
    }
    assert held == {
        "nginx": ["/d/volumes/certbot/conf"], "plugin_daemon": [], "outer": ["/d/volumes"]
    }  # fmt: skip
    [mount] = release._service_override("nginx", services)["volumes"]
    assert mount == {
        "type": "bind", "source": "/d/volumes/certbot/conf", "target": "/onf", "read_only": True
    }  # fmt: skip


def test_nothing_is_written_where_a_container_has_left_a_link(tmp_path: Path) -> None:
    seeds, volumes, host = tmp_path / "seeds", tmp_path / "volumes", tmp_path / "etc"
    for folder in (seeds / "sandbox/conf", seeds / "other", volumes / "sandbox/conf", host):
        folder.mkdir(parents=True)
    (seeds / "sandbox/conf/config.yaml").write_text("theirs")
    (seeds / "sandbox/conf/more.yaml").write_text("more")
    (seeds / "other/file").write_text("other")
    (volumes / "sandbox/conf/config.yaml").symlink_to(host / "cron")
    (volumes / "other").symlink_to(host)
    (volumes / "sandbox/conf/more.yaml").write_text("mine")
    seed(seeds, volumes)
    assert list(host.iterdir()) == []
    assert (volumes / "sandbox/conf/more.yaml").read_text() == "mine"
    (volumes / "sandbox/conf/more.yaml").unlink()
    seed(seeds, volumes)
    assert (volumes / "sandbox/conf/more.yaml").read_text() == "more"


def test_volumes_may_lie_on_another_disk(tmp_path: Path) -> None:
    """Root's own link, in a directory of root's."""
    seeds, disk, volumes = tmp_path / "seeds", tmp_path / "disk", tmp_path / "volumes"
    seeds.mkdir()
    disk.mkdir()
    (seeds / "config.yaml").write_text("new")
    volumes.symlink_to(disk)
    seed(seeds, volumes)
    assert (disk / "config.yaml").read_text() == "new"
