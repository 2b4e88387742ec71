//! How near each kernel comes to what this processor and its memory can do: the table of docs/benchmarks.md.
//!
//! ```text
//! cargo nextest run -p rlaif-model --run-ignored only --no-capture roofline
//! ```
//!
//! Shapes are SmolLM2-135M's, with the tokens of eight pairs.

use std::hint::black_box;
use std::time::Instant;

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

use super::bf16::{self, Packed, product_into};
use super::matrix::{Target, View, Write, product};
use super::tests::{leaf, random};
use crate::attention::Heads;
use crate::batch::PackedBatch;
use crate::config::ModelConfig;
use crate::ops::Attention;
use crate::rope::Rope;
use crate::simd;

const TOKENS: usize = 1700;
const HIDDEN: usize = 576;
const INNER: usize = 1536;
const VOCABULARY: usize = 49_152;

/// Seconds of the fastest of some runs: the one that the rest of the machine disturbed least.
fn fastest(mut run: impl FnMut()) -> f64 {
    let once = |_| {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..12).map(once).fold(f64::INFINITY, f64::min)
}

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i % 13) as f32 * 0.1 - 0.6).collect()
}

struct Table {
    rounded: f64,
    exact: f64,
    memory: f64,
}

impl Table {
    fn row(&self, kernel: &str, shape: &str, seconds: f64, got: f64, ceiling: f64, unit: &str) {
        let share = 100.0 * got / ceiling;
        println!("| {kernel} | {shape} | {:.3} ms | {got:.0} {unit} | {share:.0} % |", 1e3 * seconds);
    }

    fn products(&self, kernel: &str, [m, k, n]: [usize; 3], seconds: f64, rounded: bool) {
        let got = (2 * m * k * n) as f64 / seconds / 1e9;
        let ceiling = if rounded { self.rounded } else { self.exact };
        self.row(kernel, &format!("{m} × {k} × {n}"), seconds, got, ceiling, "GFLOP/s");
    }

    fn bytes(&self, kernel: &str, shape: &str, bytes: usize, seconds: f64) {
        self.row(kernel, shape, seconds, bytes as f64 / seconds / 1e9, self.memory, "GB/s");
    }
}

#[test]
#[ignore = "prints docs/benchmarks.md's table; run it on a quiet machine"]
fn roofline() {
    let large = numbers(1 << 27);
    let read = fastest(|| {
        black_box(large.par_chunks(1 << 20).map(simd::max).reduce(|| 0.0, f32::max));
    });
    drop(large);
    let rounded = if bf16::available() { bf16::peak(rayon::current_num_threads()) } else { f64::NAN };
    let exact = rounded / 2.0; // an instruction multiplies one pair of numbers a lane, and not two
    let memory = (1 << 29) as f64 / read / 1e9;
    println!(
        "{} threads; ceilings: bfloat16 products {rounded:.0} GFLOP/s, float32 products {exact:.0} GFLOP/s, reading memory {memory:.0} GB/s\n",
        rayon::current_num_threads()
    );
    println!("| kernel | shape | time | achieved | of the ceiling |\n|---|---|---|---|---|");
    let table = Table { rounded, exact, memory };

    let (x, w, head) = (numbers(TOKENS * INNER), numbers(HIDDEN * INNER), numbers(VOCABULARY * HIDDEN));
    let x = View::new(&x, TOKENS, HIDDEN, HIDDEN);
    let w = View::new(&w, HIDDEN, INNER, INNER);
    let dy = numbers(TOKENS * INNER);
    let dy = View::new(&dy, TOKENS, INNER, INNER);
    let head = View::new(&head, VOCABULARY, HIDDEN, HIDDEN).t();
    let read = View { rows: 192, ..x };
    let exact_product = |a: View<'_>, b: View<'_>| {
        let mut c = vec![0.0; a.rows * b.columns];
        fastest(|| {
            let target = Target::new(&mut c, a.rows, b.columns, b.columns);
            // SAFETY: `c` is this closure's own.
            unsafe { product(target, Write::Replace, 1.0, a, b, true) };
        })
    };
    let rounded_product = |a: View<'_>, b: View<'_>| {
        let mut c = vec![0.0; a.rows * b.columns];
        fastest(|| product_into(&mut c, Write::Replace, a, &Packed::new(b)))
    };
    let named = [
        ("x W", x, w),
        ("dx = dy Wᵀ", dy, w.t()),
        ("dW = xᵀ dy", x.t(), dy),
        ("logits of 192 reads", read, head),
    ];
    for (name, a, b) in named {
        let shape = [a.rows, a.columns, b.columns];
        if bf16::available() {
            table.products(&format!("{name}, rounded, packing in it"), shape, rounded_product(a, b), true);
        }
        table.products(&format!("{name}, exact"), shape, exact_product(a, b), false);
    }
    if bf16::available() {
        let packed = Packed::new(head);
        for rows in [32, 1] {
            let a = View { rows, ..x };
            let mut c = vec![0.0; rows * VOCABULARY];
            let seconds = fastest(|| product_into(&mut c, Write::Replace, a, &packed));
            let shape = format!("{rows} × {HIDDEN} × {VOCABULARY}");
            table.bytes(
                "logits of a step of decoding, packed before",
                &shape,
                2 * HIDDEN * VOCABULARY,
                seconds,
            );
        }
    }
    attention(&table);

    let (gate, up) = (random(1, [TOKENS, INNER]), random(2, [TOKENS, INNER]));
    let seconds = fastest(|| _ = black_box(super::swiglu(gate.clone(), up.clone())));
    table.bytes("SwiGLU", &format!("{TOKENS} × {INNER}"), 3 * 4 * TOKENS * INNER, seconds);
    let (x, weight) = (random(1, [TOKENS, HIDDEN]), random(2, [1, HIDDEN]));
    let seconds = fastest(|| _ = black_box(super::rms_norm(x.clone(), &weight, 1e-5)));
    table.bytes("RMSNorm", &format!("{TOKENS} × {HIDDEN}"), 2 * 4 * TOKENS * HIDDEN, seconds);
}

/// Eight prompts of 85 tokens with two responses of 64.
fn attention(table: &Table) {
    let json = serde_json::json!({
        "model_type": "llama", "vocab_size": 9, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": 1,
        "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64
    });
    let config = ModelConfig::from_hf_json(&json).unwrap();
    let (prompt_len, response_len, pairs) = (85, 64, 8);
    let mut batch = PackedBatch::new();
    for _ in 0..pairs {
        let prompt = batch.push_prompt(&vec![1; prompt_len]);
        (0..2).for_each(|_| _ = batch.push_response(prompt, &vec![2; response_len]));
    }
    let heads = Heads::of(&config);
    let attention = Attention::new(&batch, heads, &Rope::new(&config), None, &Device::flex());
    let (tokens, narrow) = (batch.num_tokens(), heads.key_value * heads.dim);
    // Keys that are seen, by all queries.
    let triangle = |n: usize| n * (n + 1) / 2;
    let seen = pairs * (triangle(prompt_len) + 2 * (triangle(response_len) + response_len * prompt_len));
    let inputs = || -> [Tensor<2>; 3] {
        [leaf(1, [tokens, HIDDEN]), leaf(2, [tokens, narrow]), leaf(3, [tokens, narrow])]
    };
    let [q, k, v] = inputs();
    let forward = fastest(|| _ = black_box(attention.forward(q.clone(), k.clone(), v.clone())));
    let both = fastest(|| {
        _ = black_box(attention.forward(q.clone(), k.clone(), v.clone()).sum().backward());
    });
    let shape = format!("{tokens} tokens in {pairs} trees, 9 heads of 64");
    let operations = (4 * seen * HIDDEN) as f64 / 1e9;
    table.row("attention, seen scores alone", &shape, forward, operations / forward, table.exact, "GFLOP/s");
    let backward = both - forward;
    table.row("its backward pass", &shape, backward, 2.5 * operations / backward, table.exact, "GFLOP/s");
}
