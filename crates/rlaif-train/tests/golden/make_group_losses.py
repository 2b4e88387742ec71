"""Losses and gradient norms of TRL's own GRPOTrainer and RLOOTrainer on the tiny llama in float64, for one batch whose log-probs have
moved since it was sampled. usage: make_group_losses.py GOLDEN_DIR > group_losses.json (GOLDEN_DIR/models/llama as for make_ppo_update.py)"""
import json, sys, tempfile, torch, trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
torch.set_num_threads(1)
M = sys.argv[1] + "/models/llama"
prompts = [[5, 9, 17, 33, 80], [44, 45, 46]]
responses = [[[61, 62, 63, 2], [70, 71, 72, 73, 74, 2], [90, 2]], [[100, 7, 2], [101, 8, 55, 56, 57], [33, 2]]]
items = [(p, r) for p, rs in zip(prompts, responses) for r in rs]
advantages = torch.tensor([0.9, -1.3, 0.4, -0.6, 1.1, -0.5], dtype=torch.float64)
P, T = max(len(p) for p, _ in items), max(len(r) for _, r in items)
B = len(items)
prompt_ids, prompt_mask = torch.zeros(B, P, dtype=torch.long), torch.zeros(B, P, dtype=torch.long)
completion_ids, completion_mask = torch.zeros(B, T, dtype=torch.long), torch.zeros(B, T, dtype=torch.long)
for i, (p, r) in enumerate(items):
    prompt_ids[i, P - len(p):], prompt_mask[i, P - len(p):] = torch.tensor(p), 1
    completion_ids[i, :len(r)], completion_mask[i, :len(r)] = torch.tensor(r), 1
tokenizer = PreTrainedTokenizerFast.from_pretrained(M)
data = Dataset.from_list([{"prompt": "a"}] * 6)
common = dict(output_dir=tempfile.mkdtemp(), use_cpu=True, bf16=False, report_to=[], gradient_checkpointing=False,
              per_device_train_batch_size=6, num_generations=3, max_completion_length=8)

def trainer_of(kind, config, **options):
    model = AutoModelForCausalLM.from_pretrained(M, dtype=torch.float64)
    return kind(model=model, reward_funcs=lambda completions, **_: [0.0] * len(completions), args=config(**common, **options),
                train_dataset=data, processing_class=tokenizer)

with torch.no_grad():
    model = AutoModelForCausalLM.from_pretrained(M, dtype=torch.float64)
    ids, mask = torch.cat([prompt_ids, completion_ids], 1), torch.cat([prompt_mask, completion_mask], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, P - 1:-1]
    now = torch.log_softmax(logits, -1).gather(-1, completion_ids[..., None])[..., 0]
g = torch.Generator().manual_seed(3)
old = now + 0.25 * torch.randn(B, T, generator=g, dtype=torch.float64)
ref = now + 0.5 * torch.randn(B, T, generator=g, dtype=torch.float64)

def loss_of(trainer):
    trainer.current_gradient_accumulation_steps = 1
    trainer.args.steps_per_generation = 1
    trainer.model.train()
    inputs = dict(prompt_ids=prompt_ids, prompt_mask=prompt_mask, completion_ids=completion_ids, completion_mask=completion_mask,
                  advantages=advantages, old_per_token_logps=old, ref_per_token_logps=ref, old_logps=(old * completion_mask).sum(1),
                  num_items_in_batch=completion_mask.sum())
    loss = trainer._compute_loss(trainer.model, inputs)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1e9)
    return dict(loss=loss.item(), grad_norm=norm.item())

cases = []
for reduction in ["grpo", "dapo", "bnpo", "dr_grpo"]:
    for beta in [0.0, 0.3]:
        cases.append(dict(reduction=reduction, kl_coef=beta, ratio="token",
                          **loss_of(trainer_of(GRPOTrainer, GRPOConfig, loss_type=reduction, beta=beta))))
cases.append(dict(reduction="dapo", kl_coef=0.0, ratio="token", cliprange_high=0.28, dual_clip=1.3,
                  **loss_of(trainer_of(GRPOTrainer, GRPOConfig, loss_type="dapo", beta=0.0, epsilon_high=0.28, delta=1.3))))
for beta in [0.0, 0.3]:
    cases.append(dict(kl_coef=beta, ratio="sequence_mean",
                      **loss_of(trainer_of(GRPOTrainer, GRPOConfig, loss_type="grpo", beta=beta, importance_sampling_level="sequence"))))
rloo = loss_of(trainer_of(RLOOTrainer, RLOOConfig, epsilon=0.2))
cases.append(dict(kl_coef=0.0, ratio="sequence", **rloo))
cut = lambda x: [x[i, :len(r)].tolist() for i, (_, r) in enumerate(items)]
json.dump(dict(about=__doc__.split(" usage:")[0], trl=trl.__version__, prompts=prompts, responses=responses, advantages=advantages.tolist(),
               logprobs=cut(now), old_logprobs=cut(old), ref_logprobs=cut(ref), max_completion_length=8, cases=cases), sys.stdout, indent=1)
