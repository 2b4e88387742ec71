//! Adafactor, Shazeer & Stern 2018 (<https://arxiv.org/abs/1804.04235>), with the semantics of `transformers.Adafactor` under a given
//! learning rate (`scale_parameter`, `relative_step` and `warmup_init` off), which is what `optim = "adafactor"` means in TRL.
//!
//! The second moment of a matrix is kept as its row and column means: `n + m` numbers instead of AdamW's `2 n m`. There is no first
//! moment. A vector is a matrix of one row, for which the factors give back every element's own moment.

use std::collections::BTreeMap;

use rayon::prelude::*;
use rlaif_core::config::OptimConfig;

use crate::optimizer::{CHUNK, decays, sum_of_squares};

/// Added to squared gradients (`eps[0]`).
const EPSILON: f64 = 1e-30;
/// Largest root mean square of an update before the learning rate (`clip_threshold`).
const CLIP_THRESHOLD: f64 = 1.0;
/// Of the second moment's decay 1 − t^−0.8 (`decay_rate`).
const DECAY_RATE: f64 = -0.8;
/// Blocks of rows whose column sums are added up apart; a fixed number, so that sums have one order.
const MAX_BLOCKS: usize = 64;

/// Row and column means of a parameter's squared gradients, decaying.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// `[rows]`
    pub row: Vec<f32>,
    /// `[columns]`
    pub column: Vec<f32>,
}

/// The optimizer's state: steps taken and the factors of each parameter that has had a gradient.
#[derive(Debug, Clone)]
pub struct Adafactor {
    weight_decay: f64,
    /// Updates done.
    pub step: u64,
    /// By parameter name.
    pub factors: BTreeMap<String, Factors>,
}

impl Adafactor {
    /// No steps taken.
    pub fn new(config: &OptimConfig) -> Self {
        Self { weight_decay: config.weight_decay, step: 0, factors: BTreeMap::new() }
    }

    /// Updates one parameter of `[rows, columns]` in place; `self.step` must already count this update.
    ///
    /// β = 1 − t^−0.8
    /// R = β R + (1 − β) row means of g² + ε;  C likewise of columns
    /// u = g / √(R Cᵀ / mean R);  u /= max(1, rms(u))
    /// θ −= lr · weight_decay · θ;  θ −= lr · u
    ///
    /// `gradient_scale` multiplies the gradient first, as in [`AdamW`](crate::optimizer::AdamW).
    pub fn update(
        &mut self,
        name: &str,
        parameter: &mut [f32],
        columns: usize,
        gradient: &[f32],
        gradient_scale: f64,
        learning_rate: f64,
    ) {
        let columns = columns.max(1);
        let rows = parameter.len() / columns;
        let (row_means, column_means) = squared_means(gradient, rows, columns, gradient_scale);
        let factors = self
            .factors
            .entry(name.to_string())
            .or_insert_with(|| Factors { row: vec![0.0; rows], column: vec![0.0; columns] });
        let beta = 1.0 - (self.step as f64).powf(DECAY_RATE);
        let decay = |moment: &mut f32, mean: f64| {
            *moment = (beta * f64::from(*moment) + (1.0 - beta) * mean) as f32;
        };
        factors.row.iter_mut().zip(row_means).for_each(|(moment, mean)| decay(moment, mean));
        factors.column.iter_mut().zip(column_means).for_each(|(moment, mean)| decay(moment, mean));

        let mean = factors.row.iter().map(|&r| f64::from(r)).sum::<f64>() / rows as f64;
        let row: Vec<f32> = factors.row.iter().map(|&r| (mean / f64::from(r)).sqrt() as f32).collect();
        let column: Vec<f32> = factors.column.iter().map(|&c| (1.0 / f64::from(c)).sqrt() as f32).collect();
        let scale = gradient_scale as f32;
        let mut update = vec![0f32; gradient.len()];
        update.par_chunks_mut(columns).zip(gradient.par_chunks(columns)).zip(&row).for_each(
            |((update, gradient), row)| {
                for ((u, g), column) in update.iter_mut().zip(gradient).zip(&column) {
                    *u = g * scale * row * column;
                }
            },
        );
        let rms = (sum_of_squares(&update) / update.len() as f64).sqrt();
        let step_size = (learning_rate / (rms / CLIP_THRESHOLD).max(1.0)) as f32;
        let kept = if decays(name) { (1.0 - learning_rate * self.weight_decay) as f32 } else { 1.0 };
        parameter.par_chunks_mut(CHUNK).zip(update.par_chunks(CHUNK)).for_each(|(parameter, update)| {
            parameter.iter_mut().zip(update).for_each(|(theta, u)| *theta = *theta * kept - step_size * u);
        });
    }
}

/// Means of (scale · g)² + ε over each row and over each column, summed in a fixed order.
fn squared_means(gradient: &[f32], rows: usize, columns: usize, scale: f64) -> (Vec<f64>, Vec<f64>) {
    let block_rows = (CHUNK / columns).max(rows.div_ceil(MAX_BLOCKS)).max(1);
    let scale = scale as f32;
    let parts: Vec<(Vec<f64>, Vec<f64>)> = gradient
        .par_chunks(block_rows * columns)
        .map(|block| {
            let mut column_sums = vec![0.0; columns];
            let row_means = block.chunks(columns).map(|row| {
                let mut sum = 0.0;
                for (g, column) in row.iter().zip(&mut column_sums) {
                    let g = f64::from(g * scale);
                    let squared = g * g + EPSILON;
                    sum += squared;
                    *column += squared;
                }
                sum / columns as f64
            });
            (row_means.collect(), column_sums)
        })
        .collect();
    let mut column_means = vec![0.0; columns];
    for (_, sums) in &parts {
        column_means.iter_mut().zip(sums).for_each(|(mean, sum)| *mean += sum / rows as f64);
    }
    (parts.into_iter().flat_map(|(row_means, _)| row_means).collect(), column_means)
}
