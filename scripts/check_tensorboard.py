"""What TensorBoard reads of a run against its `metrics/*.jsonl`: every finite value once, under transformers' tag.

usage: pip install tensorboard; python scripts/check_tensorboard.py runs/NAME
"""
import json, math, sys
from pathlib import Path
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run, values = Path(sys.argv[1]), 0
for folder in sorted((run / "tensorboard").iterdir()):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    shown = {(tag, event.step): [] for tag in accumulator.Tags()["scalars"] for event in accumulator.Scalars(tag)}
    for tag in accumulator.Tags()["scalars"]:
        for event in accumulator.Scalars(tag):
            shown[tag, event.step].append(event.value)
    expected = {}
    for line in (run / "metrics" / f"{folder.name}.jsonl").read_text().splitlines():
        row = json.loads(line)
        for name, value in row.items():
            if name not in ("stage", "step", "epoch") and value is not None:
                tag = f"eval/{name[5:]}" if name.startswith("eval_") else f"train/{name}"
                expected[tag, row["step"]] = value
    assert shown.keys() == expected.keys(), shown.keys() ^ expected.keys()
    for key, value in expected.items():
        assert len(shown[key]) == 1 and math.isclose(shown[key][0], value, rel_tol=1e-6, abs_tol=1e-12), (key, shown[key], value)
    files = len(list(folder.iterdir()))
    values += len(expected)
    print(f"{folder.name}: {len(expected)} values in {files} files, each once")
assert values, "no values"
