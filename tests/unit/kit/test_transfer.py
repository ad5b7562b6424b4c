"""Large files on their way: when one is too slow, cut, refused or too large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common import ProgramError
from tests.unit.models.loader_rig import GB, Ollama
from transfer import (
    BusyError,
    Limits,
    Progress,
    RefusedError,
    StalledError,
    TooSlowError,
    Watch,
    check_space,
    fetch,
)


class TestWatch:
    @pytest.fixture
    def watch(self) -> Any:
        limits = Limits(30, 0, 10, 1, 0, 0, 0)
        return lambda **changes: Watch(Limits(**{**vars(limits), **changes}), 0.0)

    def test_rate_forgets_what_was_there_already(self, watch: Any) -> None:
        look = watch()
        assert look.saw(6 * GB, 10 * GB, 0.0) == 0
        assert look.saw(6 * GB + 500, 10 * GB, 5.0) == 100
        assert look.saw(6 * GB + 500, 10 * GB, 20.0) == 0

    def test_stall(self, watch: Any) -> None:
        look = watch()
        look.saw(5, 10, 0.0)
        look.saw(5, 10, 29.0)
        with pytest.raises(StalledError, match="no new byte for 30 s, at 5 B of 10 B"):
            look.saw(5, 10, 30.0)

    def test_bytes_lost_and_fetched_again_are_no_progress(self, watch: Any) -> None:
        """Ollama takes a part back whose connection was reset: up and down, and never on."""
        look = watch()
        look.saw(5, 10, 0.0)
        for second in range(1, 30):
            look.saw(second % 5, 10, float(second))
        with pytest.raises(StalledError):
            look.saw(5, 10, 30.0)

    def test_slow_is_only_a_fault_when_a_rate_is_declared(self, watch: Any) -> None:
        for look, error in ((watch(), None), (watch(slow_rate=2), TooSlowError)):
            for second in range(10):
                look.saw(second, 1000, float(second))
            if error is None:
                look.saw(10, 1000, 10.0)
                continue
            with pytest.raises(error, match="1 B/s over 10 s is below 2 B/s"):
                look.saw(10, 1000, 10.0)

    def test_complete_is_neither_stalled_nor_slow(self, watch: Any) -> None:
        look = watch(slow_rate=1000)
        look.saw(10, 10, 0.0)
        look.saw(10, 10, 3600.0)


@pytest.mark.parametrize(
    ("fruitless", "delay"), [(1, 2.0), (2, 4.0), (3, 8.0), (4, 10.0), (9, 10.0)]
)
def test_delay_doubles_up_to_its_bound(fruitless: int, delay: float) -> None:
    assert Limits(1, 0, 1, 9, 2, 10, 0).delay(fruitless) == delay


def test_space_is_checked_with_its_reserve(tmp_path: Path) -> None:
    check_space(tmp_path, 0, 1e18, "make room")
    check_space(tmp_path, 1, 0, "make room")
    with pytest.raises(RefusedError, match=r"needs 1 B and a reserve of 1000000\.0 TB, .*make ro"):
        check_space(tmp_path, 1, 1e18, "make room")


class TestFetch:
    """Any file of any server: what it is of is the caller's business."""

    CONTENT = b"0123456789" * 10

    @pytest.fixture
    def get(self, ollama: Ollama, tmp_path: Path) -> Any:
        """Fetches a file; what was told at the beginning, and on the way."""
        ollama.files["/files/x"] = self.CONTENT

        def get(path: str = "/files/x", begins: Any = None, **more: Any) -> Any:
            told: list[Progress] = []
            fetch(
                f"{ollama.url}{path}", tmp_path / "parts" / "x", Limits(5, 0, 1, 1, 0, 0, 0),
                begins=begins or told.append, follow=told.append, **more,
            )  # fmt: skip
            return told

        return get

    def test_from_nothing(self, get: Any, tmp_path: Path) -> None:
        begun, *way = get(headers={"Authorization": "Bearer x"})
        assert (begun.completed, begun.total) == (0, 100)
        assert (way[-1].completed, way[-1].total) == (100, 100)
        assert (tmp_path / "parts" / "x").read_bytes() == self.CONTENT

    def test_from_where_it_broke_off(self, get: Any, tmp_path: Path) -> None:
        (tmp_path / "parts").mkdir()
        (tmp_path / "parts" / "x").write_bytes(self.CONTENT[:40])
        assert get()[0] == Progress(40, 100)
        assert (tmp_path / "parts" / "x").read_bytes() == self.CONTENT

    def test_whole_already(self, get: Any, tmp_path: Path) -> None:
        (tmp_path / "parts").mkdir()
        (tmp_path / "parts" / "x").write_bytes(self.CONTENT)
        assert get() == []

    def test_refused_before_the_first_byte(self, get: Any, tmp_path: Path) -> None:
        def refuse(_: Progress) -> None:
            raise RefusedError("no room")

        with pytest.raises(RefusedError, match="no room"):
            get(begins=refuse)
        assert not (tmp_path / "parts" / "x").exists()

    @pytest.mark.parametrize(
        ("status", "kind"),
        [(401, RefusedError), (404, RefusedError), (500, ProgramError), (503, BusyError)],
    )
    def test_answers_that_are_none(
        self, get: Any, ollama: Ollama, status: int, kind: type[ProgramError]
    ) -> None:
        ollama.fails = {"/files/x": status}
        with pytest.raises(ProgramError, match=f"/files/x: {status} ") as caught:
            get()
        assert type(caught.value) is kind

    def test_cut(self, get: Any, ollama: Ollama, tmp_path: Path) -> None:
        """What came is kept for the next attempt."""
        ollama.cuts = {"/files/x": 30}
        with pytest.raises(ProgramError, match="cut at 30 B of 100 B"):
            get()
        assert get()[0] == Progress(30, 100)
        assert (tmp_path / "parts" / "x").read_bytes() == self.CONTENT
