"""Runs the peer's trl_bench.py with what it has no option for, for scripts/bench-peer: peer_trl.py [--lora] [--epochs N] SCRIPT ARGUMENTS.

The adapter is that of our defaults.
"""

import argparse
import runpy
import sys

import trl
from peft import LoraConfig

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

parser = argparse.ArgumentParser()
parser.add_argument("--lora", action="store_true")
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("script", nargs=argparse.REMAINDER)
given = parser.parse_args()


def extend(trainer, task):
    plain = trainer.__init__

    def extended(self, *, args, **options):
        args.num_train_epochs = given.epochs
        if given.lora:
            options["peft_config"] = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=PROJECTIONS, task_type=task)
        plain(self, args=args, **options)

    trainer.__init__ = extended


extend(trl.RewardTrainer, "SEQ_CLS")
extend(trl.DPOTrainer, "CAUSAL_LM")
sys.argv = given.script
runpy.run_path(sys.argv[0], run_name="__main__")
