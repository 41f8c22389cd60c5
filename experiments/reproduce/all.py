"""`w2v-jax reproduce all`: put the verdict and the paper's tables and figures beside ours on one page."""

import dataclasses
from pathlib import Path

from experiments.options import arguments
from experiments.options.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceAllArguments:
    """Reproduce what the paper needs no data for, on one page (minutes); it can be interrupted.

    example: w2v-jax reproduce all --out reports/all --finished docs/results/fig1 docs/results/fig5
    """

    out: Path = Path("reports/all")
    """Folder for index.html, and for items/, a folder for each command. Finished items are kept."""
    items: tuple[str, ...] = ()
    """Items to run: table1, fig2, fig3, fig4, table2, section41. feasibility gives the verdict and always
    runs. Default: all of them."""
    finished: tuple[Path, ...] = ()
    """Folders of results to take in, such as those of reproduce fig1 and fig5. Default: none."""
    jobs: int = 1
    """Number of items side by side."""


def main(argv: list[str]) -> None:
    """Run the command."""
    options = arguments.parse(ReproduceAllArguments, argv, "w2v-jax reproduce all")
    from experiments.process import xla_flags
    from experiments.process.files import replace_file
    from experiments.process.provenance import record_provenance
    from experiments.reproduce import page as reproduction_page
    from experiments.reproduce.items import BY_NAME, FEASIBILITY, ITEMS
    from experiments.study import cells
    from w2v_jax.errors import UserError

    alone = [item.name for item in ITEMS if item.needs is None]
    for name in options.items:
        if name in BY_NAME and name not in alone:
            raise UsageError(f"--items {name} needs {BY_NAME[name].needs}: run it by itself, then --finished")
        arguments.check_choice("--items", name, alone)
    if not 1 <= options.jobs <= cells.MOST_JOBS:
        raise UsageError(f"--jobs must be between 1 and {cells.MOST_JOBS}, got {options.jobs}")
    folders = {name_of(folder): folder for folder in options.finished}
    wanted = [FEASIBILITY.name, *(options.items or alone)]
    options.out.mkdir(parents=True, exist_ok=True)
    run = [
        cells.Cell(
            name=item.name,
            arguments=item.words,
            out=options.out / "items" / item.name,
            product=f"{item.name}.md",
        )
        for item in ITEMS
        if item.name in wanted and item.name not in folders
    ]
    cells.run_cells(run, "the paper", options.jobs)
    folders |= {cell.name: cell.out for cell in run}
    xla_flags.configure_xla(1)
    try:
        text = reproduction_page.page(ITEMS, folders, record_provenance("reproduce all"))
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, StopIteration) as error:
        raise UserError(
            f"--finished or --out holds results of another version of w2v-jax ({error!r}): make them again"
        ) from error
    replace_file(options.out / "index.html", text)
    print(f"written: {options.out / 'index.html'}")


def name_of(folder: Path) -> str:
    """Find the item whose results a folder holds.

    Raises:
        UsageError: it holds the results of no item.
    """
    from experiments.reproduce.items import ITEMS

    for item in ITEMS:
        if all((folder / f"{item.name}.{ending}").is_file() for ending in ("json", "md")):
            return item.name
    names = ", ".join(f"{item.name}.json" for item in ITEMS)
    raise UsageError(
        f"--finished {folder} holds no results of the paper's items: none of {names}, with its .md"
    )
