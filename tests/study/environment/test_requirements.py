"""The project's own requirements."""

from __future__ import annotations

from pathlib import Path

from study.environment.requirements import normalized, project_requirements


def test_the_checkouts_requirements() -> None:
    wanted = project_requirements()
    assert ">=3.11" in wanted.python
    assert {"torch", "ray", "optuna"} <= {one.name for one in wanted.required}
    assert {"test", "notebook", "cluster"} <= set(wanted.extras)
    assert wanted.everything()[: len(wanted.required)] == wanted.required


def test_requirements_of_other_systems_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\nrequires-python = ">=3"\n'
        'dependencies = ["a>=1", "b; sys_platform == \'nowhere\'", "c; python_version >= \'3\'"]\n'
    )
    assert [one.name for one in project_requirements(tmp_path).required] == ["a", "c"]
    assert project_requirements(tmp_path).extras == {}


def test_names_compare_as_registries_compare_them() -> None:
    assert normalized("PyYAML") == "pyyaml"
    assert normalized("vl_convert.python") == normalized("vl-convert--Python") == "vl-convert-python"
