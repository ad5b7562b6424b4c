"""Containers that are started and waited for."""

from __future__ import annotations

import shutil

import pytest

from common import ProgramError
from dify_compose import Release
from tests.unit.dify.dify_host import OLD, Host


def test_container_run_once_is_no_service(host: Host) -> None:
    # As `docker compose run api ...` leaves it.
    containers = host.docker["containers"]
    containers["run"] = containers["api"] | {"Id": "run", "State": {"Status": "exited"}}
    host.tell(containers=containers)
    assert host.stack(OLD).pending() == []


def test_old_crashes_are_no_reason_to_give_up(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    # The container had a bad day once, and is well in a moment.
    containers = host.docker["containers"]
    containers["api"] |= {"RestartCount": 9, "State": {"Status": "restarting"}}
    well = containers | {"api": containers["api"] | {"State": {"Status": "running"}}}
    looks = iter([containers, containers, well])
    monkeypatch.setattr(Release, "containers", lambda _: next(looks))
    stack = host.stack(OLD)
    stack.containers.wait_well(stack.release, {"api": {}})


def test_image_that_could_take_the_last_room_is_not_pulled(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a first installation nobody knows how large one is."""
    host.tell(images=[])
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=4_900_000_000))
    with pytest.raises(
        ProgramError, match=r"is not pulled: it may take up to 5 GB, and / has 4\.9"
    ):
        host.stack(OLD).containers.pull({"api": {"image": "dify/api:9"}})
    assert host.docker["images"] == []


def test_log_of_what_others_wait_for_in_vain(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compose says which container did not become well, and not a word of why."""
    host.tell(unwell=["db_postgres"])
    with pytest.raises(ProgramError, match="db_postgres is unhealthy"):
        host.converge(OLD)
    said = capsys.readouterr().out
    assert "the log of db_postgres" in said
    assert "the log of redis" not in said
