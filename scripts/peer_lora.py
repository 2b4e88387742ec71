"""Runs a script of the peer's whose TRL trainers learn a LoRA adapter instead of all weights, for scripts/bench-peer:
peer_lora.py SCRIPT ARGUMENTS. The adapter is that of our defaults."""

import runpy
import sys

import trl
from peft import LoraConfig

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapt(trainer, task):
    plain = trainer.__init__

    def with_adapter(self, **options):
        adapter = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=PROJECTIONS, task_type=task)
        plain(self, **options, peft_config=adapter)

    trainer.__init__ = with_adapter


adapt(trl.RewardTrainer, "SEQ_CLS")
adapt(trl.DPOTrainer, "CAUSAL_LM")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
