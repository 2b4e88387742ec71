"""Names, shapes and settings of adapters as PEFT saves them, for the golden models.

usage: pip install peft; python make_peft_layout.py > peft_layout.json   (in the folder of this script)
"""
import importlib.metadata, json, sys, tempfile
from pathlib import Path
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

CASES = {
    "llama": ("llama", dict(r=3, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")),
    "llama_reward": ("llama", dict(r=2, target_modules=["q_proj"], task_type="SEQ_CLS", use_rslora=True)),
    "gpt2": ("gpt2", dict(r=2, target_modules=["c_attn", "attn.c_proj"], task_type="CAUSAL_LM", fan_in_fan_out=True)),
    "gpt_neox": ("gpt_neox", dict(r=2, target_modules=["query_key_value", "dense"], task_type="CAUSAL_LM")),
}
KEYS = ["peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "fan_in_fan_out", "bias"]
out = {"made_by": f"peft {importlib.metadata.version('peft')}", "cases": {}}
for name, (folder, settings) in CASES.items():
    path = Path(__file__).parent / "models" / folder
    kind = AutoModelForSequenceClassification if settings["task_type"] == "SEQ_CLS" else AutoModelForCausalLM
    extra = {"num_labels": 1} if settings["task_type"] == "SEQ_CLS" else {}
    model = get_peft_model(kind.from_pretrained(path, dtype=torch.float32, **extra),
                           LoraConfig(lora_alpha=4, lora_dropout=0.25, **settings))
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved)
        config = json.loads((Path(saved) / "adapter_config.json").read_text())
        with safe_open(Path(saved) / "adapter_model.safetensors", "pt") as file:
            tensors = {key: list(file.get_slice(key).get_shape()) for key in file.keys()}
    out["cases"][name] = {"tensors": tensors, "target_modules": sorted(config["target_modules"]),
                          "modules_to_save": config["modules_to_save"], "config": {key: config[key] for key in KEYS}}
json.dump(out, sys.stdout, indent=1)
print()
