//! Statistics: what a number is worth. One idea a file; every interval is 95 %.
//!
//! | module | answers |
//! |---|---|
//! | [`interval`] | how sure is this share, this mean, this statistic over prompts? Wilson, Student's t, cluster bootstrap |
//! | [`paired`] | did the same prompts come out better? Paired difference, exact sign and McNemar tests |
//! | [`winrate`] | how often does one policy beat another? |
//! | [`two_shares`] | do two groups differ? Newcombe's interval |
//! | [`equivalence`] | are they the same, and not only not found to differ? Two one-sided tests |
//! | [`clustered`] | what is the mean where measurements are alike by template, by name, or by both? |
//! | [`holm`](mod@holm) | which of many tests found something? |
//! | [`sample_size`] | how many prompts does it take to see a difference, and what can these show? |
//! | [`bradley_terry`] | which of many models is best? Ranking from pairs |
//! | [`length`] | does the longer response win, and who would win at equal length? AlpacaEval's length-controlled win rate |
//! | [`agreement`] | do two judges say the same? Accuracy, Cohen's kappa, plain and weighted |
//! | [`raters`] | do many raters say the same, where not all rated all? Fleiss' kappa, Gwet's AC1 |
//! | [`krippendorff`] | the same, by Krippendorff's alpha: nominal, ordinal, interval |
//! | [`repeatability`] | does a judge say the same when asked again? |
//! | [`position`] | does a judge choose the place instead of the response? |
//! | [`self_preference`] | does a judge like its own model's responses better than others do? |
//! | [`ppi`] | what is the win rate that people would see, from many verdicts and a few labels? Prediction-powered inference |
//! | [`rogan_gladen`] | the same from a judge's error rates alone |
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
pub mod bradley_terry;
pub mod calibration;
pub mod clustered;
pub mod dawid_skene;
pub mod diversity;
pub mod equivalence;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_audit;
#[cfg(test)]
mod golden_panel;
pub mod histogram;
pub mod holm;
pub mod interval;
pub mod judge_model;
pub mod krippendorff;
pub mod length;
mod linear;
pub mod paired;
pub mod position;
pub mod ppi;
pub mod raters;
pub mod repeatability;
pub mod rogan_gladen;
pub mod sample_size;
pub mod self_preference;
mod special;
pub mod two_shares;
pub mod winrate;

pub use interval::Interval;
