"""Lays out the site as the repository is, so that a link that works on GitHub works there too."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# Pages, and what they show or link to. A test holds each link of a page to a file that is there.
PATTERNS = (
    *("*.md", "docs/*.md", "deploy/README.md", "benchmarks/README.md"),
    *("*.png", "docs/*.png", "examples/*.py", "examples/*.ipynb", "examples/*/*.png"),
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Takes the pages from where they are; `docs_dir` alone would end at `docs/`."""
    root = Path(config.config_file_path).parent
    found = sorted({path for pattern in PATTERNS for path in root.glob(pattern)})
    theme = [file for file in files if file.src_dir != config.docs_dir]
    ours = [File.generated(config, str(path.relative_to(root)), abs_src_path=str(path)) for path in found]
    return Files([*theme, *ours])
