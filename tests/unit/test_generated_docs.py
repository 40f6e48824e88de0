"""The generated pages say what the source says."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from dbproxy.errors import PROBLEMS, Code
from dbproxy.settings import Scope, environment_names, options

ROOT = Path(__file__).resolve().parents[2]
GENERATOR = runpy.run_path(str(ROOT / "scripts" / "gen_docs.py"))
PAGES: dict[str, Callable[[], str]] = GENERATOR["PAGES"]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_generated_page_is_not_stale(name: str) -> None:
    written = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), "run `python scripts/gen_docs.py`"


@pytest.mark.parametrize("code", Code)
def test_the_errors_page_has_a_section_with_the_next_step_of_each_code(code: Code) -> None:
    section = PAGES["errors.md"]().split(f"\n## {code}\n", 1)[1].split("\n## ", 1)[0]
    assert PROBLEMS[code].meaning in section
    assert PROBLEMS[code].next_step in section


def test_the_options_page_names_every_flag_and_every_variable() -> None:
    page = PAGES["options.md"]()
    for name, option, _ in options(*Scope):
        assert all(flag in page for flag in option.flags)
        assert all(f"`{variable}`" in page for variable in environment_names(name))


def test_the_check_tells_a_stale_page(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main: Callable[[list[str]], int] = GENERATOR["main"]
    monkeypatch.setitem(main.__globals__, "DOCS", tmp_path)
    assert main([]) == 0
    assert main(["--check"]) == 0
    (tmp_path / "errors.md").write_text("old", encoding="utf-8")
    assert main(["--check"]) == 1
    assert "errors.md is stale" in capsys.readouterr().err
