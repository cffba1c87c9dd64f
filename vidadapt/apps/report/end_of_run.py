"""The report that a training run or an evaluation writes at its end."""

from __future__ import annotations

from pathlib import Path

from vidadapt.console import printable
from vidadapt.distributed import World


def write_report_after(folder: Path, world: World) -> None:
    """Write the report of a run that has ended, or of the run whose evaluation has.

    The main process does; the others return at once.

    It is told where the page is, or why there is none: no failure is raised, since the results
    are written already.

    Args:
        folder: of the run, or of the evaluation. If the latter is in a run's folder, the page is
            the run's.
    """
    if not world.is_main:
        return
    above = folder.absolute().parent
    is_inside = all((above / name).is_file() for name in ("config.yaml", "environment.json"))
    home = folder.parent if is_inside else folder
    try:
        # Others that use this room need none of the rooms of models, which this one imports.
        from vidadapt.apps.report.run_report import write_report

        print(f"report: {write_report([home], None)}", flush=True)
    except Exception as error:
        print(
            printable(
                f"no report was written ({type(error).__name__}: {error}); the results are "
                f"complete. Try again with: vidadapt report {home}"
            ),
            flush=True,
        )
