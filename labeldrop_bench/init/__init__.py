"""`labeldrop-bench init`: from folders of images and label maps to a suite file that can be run as it is.

`folders` says what lies in a folder, `names` what names tell, `decisions` what follows, `plan` which sizes are
affordable, and `write` puts it into a file with comments.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from labeldrop_bench.init import plan, write
from labeldrop_bench.init.decisions import decide
from labeldrop_bench.init.folders import InitError, Say, find, look

__all__ = ["InitError", "suite_for"]
_LISTED = 20  # problems of a source


def suite_for(folders: Sequence[Path], say: Say) -> str:
    """The text of a suite file.

    Args:
        folders: nnU-Net's raw data sets, folders of them, or image-mask folders.
        say: takes lines for the person who waits.

    Raises:
        InitError: a folder without data, or with data that do not go together.
    """
    places = list(dict.fromkeys(place for given in folders for place in find(given)))
    sources = [look(place, say) for place in places]
    decisions = decide(sources)
    for source in sources:
        _report(source.name, source.problems, say)
    for domain in decisions.domains:
        if len(domain.cases) < 3:
            say(
                f"{domain.name}: {len(domain.cases)} case(s), and training, validation and test need one each; add some"
            )
    if not decisions.missing:
        seldom = {c: None for domain in decisions.domains if not domain.told_by_case for c in domain.seldom}
        asked = f", unless {', '.join(seldom)} was annotated in some cases alone" if seldom else ""
        say(
            f"every label counts as annotated everywhere: nothing is partially labelled{asked}; the file shows how to "
            f"hide labels"
        )
    cases = sum(len(source.files) - len(source.test) for source in sources)
    planned = plan.make([g for source in sources for g in source.grids], round(0.6 * cases), 1 + len(decisions.shown))
    return write.suite(decisions, planned)


def _report(name: str, problems: Sequence[str], say: Say) -> None:
    if problems:
        more = [f"and {len(problems) - _LISTED} more"] * (len(problems) > _LISTED)
        lines = "\n  ".join([*problems[:_LISTED], *more])
        say(f"{name}: {len(problems)} problem(s); mend the files, or set skip_bad = true to leave them out:\n  {lines}")
