//! Adafactor and the schedules against transformers (`golden/make_optimizers.py`).

use rlaif_core::config::{OptimConfig, OptimizerKind, Schedule};
use rlaif_train::optimizer::Optimizer;
use rlaif_train::schedule::learning_rate;
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/optimizers.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

/// `[rows, columns]` to `[columns, rows]`.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns;
    (0..values.len()).map(|i| values[(i % rows) * columns + i / rows]).collect()
}

#[test]
fn adafactor_takes_the_five_steps_of_transformers_whichever_way_a_weight_lies() {
    let golden = golden();
    let cases = golden["adafactor"].as_object().unwrap();
    assert_eq!(cases.len(), 4);
    for (name, case) in cases {
        let as_f32 = |value: &Value| numbers(value).into_iter().map(|v| v as f32).collect::<Vec<f32>>();
        let shape = numbers(&case["shape"]);
        let columns = *shape.last().unwrap() as usize;
        let config = OptimConfig {
            optimizer: OptimizerKind::Adafactor,
            weight_decay: case["weight_decay"].as_f64().unwrap(),
            ..OptimConfig::default()
        };
        let (mut optimizer, mut turned) = (Optimizer::new(&config), Optimizer::new(&config));
        let mut theta = as_f32(&case["start"]);
        let mut theta_turned = transposed(&theta, columns);
        let rows = theta.len() / columns;
        for (gradient, after) in
            case["gradients"].as_array().unwrap().iter().zip(case["after"].as_array().unwrap())
        {
            let gradient = as_f32(gradient);
            let double: Vec<f32> = gradient.iter().map(|g| 2.0 * g).collect();
            optimizer.begin_step();
            optimizer.update("weight", &mut theta, columns, &double, 0.5, 1e-2);
            turned.begin_step();
            let gradient = transposed(&gradient, columns);
            turned.update("weight", &mut theta_turned, rows, &gradient, 1.0, 1e-2);
            for (i, (got, want)) in theta.iter().zip(numbers(after)).enumerate() {
                assert!((f64::from(*got) - want).abs() < 2e-6, "{name}, {i}: got {got}, want {want}");
            }
            for (a, b) in transposed(&theta, columns).iter().zip(&theta_turned) {
                assert!((a - b).abs() < 1e-6, "{name}: {a} and {b}");
            }
        }
    }
}

#[test]
fn rates_after_warm_up_are_those_of_transformers() {
    let golden = golden();
    let (total, warmup) = (golden["total"].as_u64().unwrap(), golden["warmup"].as_u64().unwrap());
    for (name, schedule, min_lr_ratio) in [
        ("linear", Schedule::Linear, 0.0),
        ("cosine", Schedule::Cosine, 0.0),
        ("cosine_min_0.1", Schedule::Cosine, 0.1),
    ] {
        let warmup_ratio = warmup as f64 / total as f64;
        let config =
            OptimConfig { schedule, min_lr_ratio, warmup_ratio, learning_rate: 1.0, ..Default::default() };
        let theirs = numbers(&golden["schedules"][name]);
        for step in 0..total {
            let ours = learning_rate(&config, step, total);
            // transformers' first step has a rate of 0; ours rises by as many steps without it.
            let want = match step < warmup {
                true => (step + 1) as f64 / (warmup + 1) as f64,
                false => theirs[step as usize],
            };
            assert!((ours - want).abs() < 1e-12, "{name}, step {step}: got {ours}, want {want}");
            assert!(step >= warmup || theirs[step as usize] <= ours);
        }
    }
    let constant = OptimConfig {
        schedule: Schedule::Constant,
        min_lr_ratio: 0.5,
        learning_rate: 1.0,
        ..Default::default()
    };
    assert_eq!(learning_rate(&constant, 9, 10), 1.0);
}
