"""What `reproduce all` shows, in its order."""

from experiments.reproduce import cost_items as costs
from experiments.reproduce import outlook_items as outlook
from experiments.reproduce.comparison import Item

FEASIBILITY = Item(
    "feasibility",
    "Are we there yet?",
    ("feasibility",),
    "memory.png",
    outlook.feasibility,
    outlook.feasibility_means,
)
RECORDED = "recorded speech in Common Voice's layout (--data), and hours; at scale smoke minutes"
ITEMS = (
    FEASIBILITY,
    Item("table1", "Table 1: parameters and FLOPs by module", ("reproduce", "table1"), "table1.png", costs.table1, costs.table1_means),
    Item("fig1", "Figure 1: federated against centralised pre-training", ("reproduce", "fig1"), "fig1.png", outlook.fig1, outlook.fig1_means, RECORDED),
    Item("fig2", "Figure 2: memory and compute by layer", ("reproduce", "fig2"), "fig2.png", costs.fig2, costs.fig2_means),
    Item("fig3", "Figure 3: memory and FLOPs against length", ("reproduce", "fig3"), "fig3.png", costs.fig3, costs.fig3_means),
    Item("fig4", "Figure 4: fp32 against mixed precision", ("reproduce", "fig4"), "fig4.png", costs.fig4, costs.fig4_means),
    Item("table2", "Table 2: seconds of a training step", ("reproduce", "table2"), "table2.png", costs.table2, costs.table2_means),
    Item("section41", "Section 4.1: from which year?", ("reproduce", "section41"), "section41.png", outlook.section41, outlook.section41_means),
    Item("fig5", "Figure 5: federated pre-training and recognition", ("reproduce", "fig5"), "fig5-fairness.png", outlook.fig5, outlook.fig5_means, RECORDED),
)  # fmt: skip
BY_NAME = {item.name: item for item in ITEMS}
