"""The items of the paper in the order in which `reproduce all` shows them."""

from experiments.reproduce import fig2, fig3, fig4, outlook_items, section41, table1, table2, verdict

FEASIBILITY = verdict.ITEM
ITEMS = (
    FEASIBILITY,
    table1.ITEM,
    outlook_items.FIG1,
    fig2.ITEM,
    fig3.ITEM,
    fig4.ITEM,
    table2.ITEM,
    section41.ITEM,
    outlook_items.FIG5,
)
BY_NAME = {item.name: item for item in ITEMS}
