"""Figures that the paper prints, by table.

Source: Xiao et al., "Efficient Streaming Language Models with Attention Sinks" (arXiv 2309.17453).
"""

from __future__ import annotations

from streamingllm.evaluation.reproduce.exhibit import PrintedTable

TABLE_1 = PrintedTable(
    ("dense", "0+1024", "recompute", "4+1020"),
    {"Llama-2-13B, PG19, 65K tokens, perplexity": (5641, 5158, 5.43, 5.40)},
)
TABLE_2 = PrintedTable(
    ("0", "1", "2", "4", "8"),
    {
        "Falcon-7B": (17.90, 12.12, 12.12, 12.12, 12.12),
        "MPT-7B": (460.29, 14.99, 15.00, 14.99, 14.98),
        "Pythia-12B": (21.62, 11.95, 12.09, 12.09, 12.02),
        "Llama-2-7B": (3359.95, 11.88, 10.51, 9.59, 9.54),
    },
)
TABLE_3 = PrintedTable(
    ("0+1024", "1+1023", "2+1022", "4+1020"),
    {
        "vanilla, 160M, pre-trained": (27.87, 18.49, 18.05, 18.05),
        "zero sink (softmax1)": (29214, 19.90, 18.27, 18.01),
        "learnable sink token": (1235, 18.01, 18.01, 18.02),
    },
)
TABLE_5 = PrintedTable(
    ("one-shot", "window", "StreamingLLM"),
    {
        "Llama-2-7B-chat, ARC-E": (71.25, 3.58, 71.34),
        "Llama-2-7B-chat, ARC-C": (53.16, 1.39, 55.03),
    },
)
TABLE_6 = PrintedTable(
    ("256", "512", "1024", "2048"),
    {
        "Falcon-7B": (13.61, 12.84, 12.34, 12.84),
        "MPT-7B": (14.12, 14.25, 14.33, 14.99),
        "Pythia-12B": (13.17, 12.52, 12.08, 12.09),
        "Llama-2-7B (512, 1024, 2048, 4096)": (9.73, 9.32, 9.08, 9.59),
    },
)
TABLE_7 = PrintedTable(
    ("20", "40", "60", "80", "100", "150", "200", "400", "600", "800", "1000"),
    {
        "4+2044": (85.80, 80.35, 79.15, 75.30, 0, 0, 0, 0, 0, 0, 0),
        "4+4092": (84.60, 83.80, 82.80, 77.15, 61.60, 68.20, 0, 0, 0, 0, 0),
        "4+8188": (81.15, 81.25, 81.50, 76.40, 50.10, 58.30, 62.75, 0, 0, 0, 0),
        "4+16380": (77.65, 77.50, 78.50, 73.80, 40.50, 38.45, 46.90, 45.70, 28.50, 0, 0),
    },
)
TABLE_8 = PrintedTable(
    ("NarrativeQA", "Qasper", "HotpotQA", "2WikiMQA", "GovReport", "MultiNews"),
    {
        "truncation 1750+1750": (18.7, 19.2, 25.4, 32.8, 27.3, 25.8),
        "StreamingLLM 4+3496": (11.6, 16.9, 21.6, 28.2, 23.9, 25.5),
        "StreamingLLM 1750+1750": (18.2, 19.7, 24.9, 32.0, 26.3, 25.9),
    },
)
FIGURE_10 = PrintedTable(
    ("256", "512", "1024", "2048", "4096"),
    {
        "Llama-2-7B, A6000, recompute, ms": (63, 103, 223, 523, 1411),
        "Llama-2-7B, A6000, StreamingLLM, ms": (31, 31, 35, 45, 65),
        "Llama-2-13B, A6000, recompute, ms": (99, 169, 361, 860, 2355),
        "Llama-2-13B, A6000, StreamingLLM, ms": (48, 52, 60, 75, 106),
    },
)
