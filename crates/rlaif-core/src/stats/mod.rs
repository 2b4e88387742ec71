//! Statistics: what a number is worth. One idea a file; every interval is 95 %.
//!
//! | module | answers |
//! |---|---|
//! | [`interval`] | how sure is this share, this mean, this statistic over prompts? Wilson, Student's t, cluster bootstrap |
//! | [`paired`] | did the same prompts come out better? Paired difference, exact sign and McNemar tests |
//! | [`winrate`] | how often does one policy beat another? |
//! | [`agreement`] | do two judges say the same? Accuracy, Cohen's kappa |
//! | [`position`] | does a judge choose the place instead of the response? |
//! | [`calibration`] | does p mean what it says? ECE, Brier score, negative log-likelihood |
//! | [`auc`] | does a higher score mean a better response? |
//! | [`histogram`] | how are these values spread? |
//!
//! Nothing here turns missing data into a number: a statistic of nothing is `None`.

pub mod agreement;
pub mod auc;
pub mod calibration;
#[cfg(test)]
mod golden;
pub mod histogram;
pub mod interval;
pub mod paired;
pub mod position;
mod special;
pub mod winrate;

pub use interval::Interval;
