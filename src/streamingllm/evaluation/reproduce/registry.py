"""List exhibits by name."""

from __future__ import annotations

from streamingllm.evaluation.reproduce import perplexity_exhibits as perplexity
from streamingllm.evaluation.reproduce import question_exhibits as questions
from streamingllm.evaluation.reproduce.exhibit import ExhibitPlan
from streamingllm.evaluation.reproduce.latency_exhibits import figure_10

_PLANS = (
    ExhibitPlan("table-1", "Table 1: dense, window, re-computation, sinks", perplexity.table_1),
    ExhibitPlan("table-2", "Table 2: number of sinks", perplexity.table_2),
    ExhibitPlan("table-3", "Table 3: models trained with and without sinks", perplexity.table_3),
    ExhibitPlan(
        "table-5",
        "Table 5: ARC as a stream",
        questions.table_5,
        tuple(questions.ARC_FILES.values()),
    ),
    ExhibitPlan("table-6", "Table 6: cache sizes", perplexity.table_6),
    ExhibitPlan("table-7", "Table 7: StreamEval by distance", questions.table_7),
    ExhibitPlan(
        "table-8", "Table 8: long texts and questions", questions.table_8, (questions.QMSUM_FILE,)
    ),
    ExhibitPlan("table-10", "Table 10: sinks in pre-training, in full", perplexity.table_3),
    ExhibitPlan("figure-3", "Figure 3: perplexity along the text", perplexity.figure_3),
    ExhibitPlan("figure-5", "Figure 5: a text of millions of tokens", perplexity.figure_5),
    ExhibitPlan("figure-9", "Figure 9: StreamEval along the stream", questions.figure_9),
    ExhibitPlan("figure-10", "Figure 10: latency", figure_10),
)
EXHIBITS = {plan.name: plan for plan in _PLANS}
