"""Small Parquet files as the Hub has them, of our own writing; by pyarrow. Run in this folder."""
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq

turn = lambda role, content: {"role": role, "content": content}
chat = lambda answer: [turn("user", "2+2?"), turn("assistant", answer)]

# UltraFeedback binarized and TRL: conversations in lists of structs, a margin, a null.
trl = [
    {"prompt": "2+2?", "chosen": chat("4"), "rejected": chat("5"), "margin": 1.5, "score_chosen": 9.0},
    {"prompt": "2+2?", "chosen": chat("four"), "rejected": chat("22"), "margin": None, "score_chosen": None},
]
hh = [
    {"chosen": f"\n\nHuman: Hi {i}\n\nAssistant: Hello!", "rejected": f"\n\nHuman: Hi {i}\n\nAssistant: Go."}
    for i in range(300)
]
ultrafeedback = [
    {
        "instruction": "Name a colour",
        "models": ["a", "b", "c"],
        "completions": [
            {"model": "a", "response": "Blue", "overall_score": 8.0, "annotations": {"helpfulness": {"Rating": "5"}}},
            {"model": "b", "response": "Seven", "overall_score": 1.0, "annotations": {"helpfulness": {"Rating": "1"}}},
            {"model": "c", "response": "Grün", "overall_score": 8.0, "annotations": {"helpfulness": {"Rating": "4"}}},
        ],
    }
]
argilla = [
    {
        "fields": {"prompt": "Name a river", "first": "The Rhine", "second": "The Alps"},
        "responses": {
            "quality": [
                {"user_id": "u1", "status": "submitted", "value": [{"value": "first", "rank": 1}, {"value": "second", "rank": 2}]},
                {"user_id": "u2", "status": "submitted", "value": [{"value": "first", "rank": 1}, {"value": "second", "rank": 1}]},
            ]
        },
    }
]
for name, rows, compression in [
    ("trl", trl, "snappy"),
    ("hh", hh, "zstd"),
    ("ultrafeedback", ultrafeedback, "gzip"),
    ("argilla", argilla, "none"),
]:
    pq.write_table(pa.Table.from_pylist(rows), f"{name}.parquet", compression=compression, row_group_size=128)
pq.write_table(pa.Table.from_pylist(hh[:2]), "brotli.parquet", compression="brotli")
with open("hh.jsonl.gz", "wb") as file:
    text = "".join(json.dumps(row) + "\n" for row in hh[:3])
    file.write(gzip.compress(text.encode(), mtime=0))
