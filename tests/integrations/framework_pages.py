"""docs/monai.md and docs/lightning.md: `python tests/integrations/framework_pages.py` puts in what is printed now.

How such a page is written, `pages.py` says.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from pages import ROOT, Page


def _nothing(_: Path) -> None:
    """The pages make their data themselves."""


def trains(command: str) -> bool:
    """Whether what is printed depends on the processor in its last digits."""
    return command.startswith(("python train.py", "python -m monai.bundle"))


PAGES = {name: Page(ROOT / "docs" / f"{name}.md", _nothing, trains) for name in ("monai", "lightning")}

if __name__ == "__main__":
    for page in PAGES.values():
        if page.path.exists():
            page.renew()
