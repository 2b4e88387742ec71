//! Statistics: what a number is worth. One idea a file; every interval is 95 %.
//!
//! | module | answers |
//! |---|---|
//! | [`interval`] | how sure is this share, this mean, this statistic over prompts? Wilson, Student's t, cluster bootstrap |
//! | [`paired`] | did the same prompts come out better? Paired difference, exact sign and McNemar tests |
//! | [`winrate`] | how often does one policy beat another? |
//! | [`agreement`] | do two judges say the same? Accuracy, Cohen's kappa |
//! | [`position`] | does a judge choose the place instead of the response? |
//! | [`dawid_skene`] | which judges are right, and what is true, when hardly anybody knows? Error rates by place |
//! | [`judge_model`] | how strongly does each judge follow quality, and the place? Bradley-Terry with judge terms |
//! | [`calibration`] | does p mean what it says? ECE, Brier score, negative log-likelihood |
//! | [`auc`] | does a higher score mean a better response? |
//! | [`diversity`] | do texts repeat themselves, or each other? |
//! | [`histogram`] | how are these values spread? |
//!
//! Nothing here turns missing data into a number: a statistic of nothing is `None`.

pub mod agreement;
pub mod auc;
pub mod calibration;
pub mod dawid_skene;
pub mod diversity;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_panel;
pub mod histogram;
pub mod interval;
pub mod judge_model;
mod linear;
pub mod paired;
pub mod position;
mod special;
pub mod winrate;

pub use interval::Interval;
