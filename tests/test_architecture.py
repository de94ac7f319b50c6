"""The layers of the code, and the drawing of them in docs/architecture.md.

`python -m tests.test_architecture` draws the imports anew.
"""

import re
from pathlib import Path

import grimp
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
DRAWING = re.compile(r"(?<=```mermaid\n).*?(?=```)", re.DOTALL)


def package(module: str) -> str:
    """The node that stands for a module: its package; `pipeline` for the stages of dvc.yaml themselves."""
    parts = module.split(".")
    if parts[0] == "gui":
        return "gui"
    is_package = (ROOT / "stages" / parts[1]).is_dir()
    return parts[1] if is_package else "pipeline"


def drawing() -> str:
    """Mermaid: an arrow from each package to those it imports, but for `common`, which all of stages import."""
    graph = grimp.build_graph("stages", "gui")
    arrows = {
        (package(importer), package(imported))
        for importer in graph.modules - {"stages"}
        for imported in graph.find_modules_directly_imported_by(importer) - {"stages"}
    }
    lines = [f"    {a} --> {b}" for a, b in sorted(arrows) if a != b and b != "common"]
    return "\n".join(["flowchart TD", *lines]) + "\n"


def test_the_layers_hold_and_no_imports_form_a_circle():
    assert lint_imports(str(ROOT / "pyproject.toml"), no_cache=True) == EXIT_STATUS_SUCCESS


def test_the_drawing_shows_the_imports_as_they_are():
    [drawn] = DRAWING.findall(PAGE.read_text(encoding="utf-8"))
    assert drawn == drawing()


if __name__ == "__main__":
    PAGE.write_text(DRAWING.sub(lambda _: drawing(), PAGE.read_text(encoding="utf-8")), encoding="utf-8")
