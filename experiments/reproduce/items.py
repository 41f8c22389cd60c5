"""The items of the paper in the order in which `reproduce all` shows them."""

from experiments.reproduce import fig2, fig3, fig4, outlook_items, section41, table1, table2, verdict
from experiments.reproduce.comparison import Item

RECORDED = "recorded speech in Common Voice's layout (--data), and hours; at scale smoke minutes"
FEASIBILITY = verdict.ITEM
ITEMS = (
    FEASIBILITY,
    table1.ITEM,
    Item(
        "fig1",
        "Figure 1: federated against centralised pre-training",
        ("reproduce", "fig1"),
        outlook_items.fig1,
        outlook_items.fig1_means,
        RECORDED,
    ),
    fig2.ITEM,
    fig3.ITEM,
    fig4.ITEM,
    table2.ITEM,
    section41.ITEM,
    Item(
        "fig5",
        "Figure 5: federated pre-training and recognition",
        ("reproduce", "fig5"),
        outlook_items.fig5,
        outlook_items.fig5_means,
        RECORDED,
    ),
)
BY_NAME = {item.name: item for item in ITEMS}
