"""A straightforward PPO loop in PyTorch and transformers, for scripts/bench-peer: what a good engineer writes who has no system for it.

Per step: sample in one batch, score, log-probabilities of policy and reference and values without gradients, GAE, then passes over the rollout in
micro-batches with clipped losses, and AdamW for policy and critic. Padding is as short as the batch allows, and logits are computed for responses
alone. In bfloat16, training casts float32 weights (autocast), and copies in bfloat16 sample and are the reference.

Prints one JSON line: response tokens, seconds of the steps after the first, peak memory.
"""

import argparse
import copy
import json
import resource
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

GAMMA, LAMBDA, CLIP, CLIP_VALUE, KL_COEF = 1.0, 0.95, 0.2, 0.2, 0.05


class Critic(torch.nn.Module):
    """A trunk of its own with a scalar head."""

    def __init__(self, model):
        super().__init__()
        self.trunk, self.head = model.model, torch.nn.Linear(model.config.hidden_size, 1, bias=False)
        torch.nn.init.zeros_(self.head.weight)

    def forward(self, ids, mask, length):
        hidden = self.trunk(input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=False).last_hidden_state
        return self.head(hidden[:, -length - 1:-1]).squeeze(-1).float()  # [B, T]


def positions(mask):
    return (mask.cumsum(-1) - 1).clamp(min=0)


def logprobs(model, ids, mask, length):
    """log π of the last `length` tokens, [B, T]."""
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=False, logits_to_keep=length + 1).logits
    return logits[:, :-1].float().log_softmax(-1).gather(-1, ids[:, -length:, None]).squeeze(-1)


def gae(rewards, values, mask):
    """Schulman et al. 2016; rewards, values, mask [B, T]."""
    advantages, last = torch.zeros_like(rewards), torch.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        following = values[:, t + 1] * mask[:, t + 1] if t + 1 < rewards.shape[1] else 0.0
        last = (rewards[:, t] + GAMMA * following - values[:, t] + GAMMA * LAMBDA * last) * mask[:, t]
        advantages[:, t] = last
    return advantages


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("prompts", help="JSON lines with `prompt`")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--prompts-per-step", type=int, required=True)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--new-tokens", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--micro-batch", type=int, required=True)
    parser.add_argument("--score-tokens", type=int, required=True, help="a response scores 1 from so many tokens on, less below")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    tokenizer = AutoTokenizer.from_pretrained(args.model, padding_side="left")
    policy = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    critic = Critic(copy.deepcopy(policy))
    reference = copy.deepcopy(policy).requires_grad_(False)
    sampler = copy.deepcopy(policy).requires_grad_(False) if args.bf16 else policy
    if args.bf16:
        reference.bfloat16(), sampler.bfloat16()
    optimizers = [torch.optim.AdamW(policy.parameters(), lr=3e-6), torch.optim.AdamW(critic.parameters(), lr=1e-5)]
    prompts = [json.loads(line)["prompt"] for line in open(args.prompts)]
    texts = [tokenizer.apply_chat_template([{"role": "user", "content": p}], tokenize=False, add_generation_prompt=True) for p in prompts]
    autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16, enabled=args.bf16)
    seconds, tokens = 0.0, 0
    for step in range(args.steps):
        started = time.time()
        first = step * args.prompts_per_step
        batch = [texts[(first + i) % len(texts)] for i in range(args.prompts_per_step) for _ in range(args.samples)]
        encoded = tokenizer(batch, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            if args.bf16:
                for to, source in zip(sampler.parameters(), policy.parameters()):
                    to.copy_(source)
            ids = sampler.generate(**encoded, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=args.new_tokens)
            length = ids.shape[1] - encoded["input_ids"].shape[1]
            response = ids[:, -length:]
            ended = (response == tokenizer.eos_token_id).cumsum(-1)
            valid = ((ended - (response == tokenizer.eos_token_id).long()) == 0).float()  # the end is of the response
            mask = torch.cat([encoded["attention_mask"], valid.long()], 1)
            scores = (valid.sum(-1) / args.score_tokens).clamp(max=1.0) - (ended[:, -1] == 0).float()
            old, ref, values = [], [], []
            for at in range(0, len(ids), args.micro_batch):
                part = slice(at, at + args.micro_batch)
                with autocast():
                    old.append(logprobs(policy, ids[part], mask[part], length))
                    values.append(critic(ids[part], mask[part], length))
                ref.append(logprobs(reference, ids[part], mask[part], length))
            old, ref, values = torch.cat(old), torch.cat(ref), torch.cat(values) * valid
            rewards = -KL_COEF * (old - ref) * valid
            last = valid.sum(-1).long() - 1
            rewards[torch.arange(len(ids)), last] += scores
            advantages = gae(rewards, values, valid)
            returns = advantages + values
            mean = (advantages * valid).sum() / valid.sum()
            variance = ((advantages - mean) ** 2 * valid).sum() / valid.sum()
            advantages = (advantages - mean) * (variance + 1e-8).rsqrt()
        for _ in range(args.epochs):
            for at in range(0, len(ids), args.micro_batch):
                part = slice(at, at + args.micro_batch)
                with autocast():
                    new = logprobs(policy, ids[part], mask[part], length)
                    value = critic(ids[part], mask[part], length)
                ratio = (new - old[part]).exp()
                surrogate = torch.min(ratio * advantages[part], ratio.clamp(1 - CLIP, 1 + CLIP) * advantages[part])
                near = values[part] + (value - values[part]).clamp(-CLIP_VALUE, CLIP_VALUE)
                squares = torch.max((value - returns[part]) ** 2, (near - returns[part]) ** 2)
                loss = ((-surrogate + 0.5 * squares) * valid[part]).sum() / valid.sum()
                loss.backward()
            for optimizer, model in zip(optimizers, (policy, critic)):
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
        if step > 0:
            seconds += time.time() - started
            tokens += int(valid.sum())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"tokens": tokens, "seconds": seconds, "tokens_per_s": tokens / seconds, "peak_rss_gb": peak}))


if __name__ == "__main__":
    main()
