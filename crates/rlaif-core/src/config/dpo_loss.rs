//! `dpo.loss`: what is minimised over a pair, and which keys of `[dpo]` it reads.

use serde::{Deserialize, Serialize};

/// A loss over preferences, under TRL's name where TRL has it. Formulas are in `rlaif_train::loss::dpo` and `docs/trainers/dpo.md`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DpoLossKind {
    /// Direct preference optimisation, Rafailov et al. 2023; on soft labels their cross-entropy.
    #[default]
    Sigmoid,
    /// Conservative DPO, Mitchell 2023: a known share of the labels is flipped.
    Cdpo,
    /// Robust DPO, Chowdhury et al. 2024: unbiased under a known share of flipped labels.
    Robust,
    /// SLiC's hinge, Zhao et al. 2023.
    Hinge,
    /// Identity preference optimisation, Azar et al. 2023, on log-ratios a token (TRL).
    IpoMean,
    /// The same on summed log-ratios (OpenRLHF).
    IpoSum,
    /// `sigmoid` on log-ratios a token.
    SigmoidNorm,
    /// Meng et al. 2024: log-probs a token against a margin, without a reference.
    Simpo,
    /// Hong et al. 2024: likelihood and odds ratio, without a reference.
    Orpo,
    /// Ethayarajh et al. 2024: each response against a reference point.
    Kto,
    /// Efficient exact optimisation, Ji et al. 2024.
    ExoPair,
    /// Noise contrastive alignment, Chen et al. 2024.
    NcaPair,
    /// Binary classifier optimisation, Jung et al. 2024, without its shift.
    BcoPair,
    /// Self-play preference optimisation, Wu et al. 2024.
    SppoHard,
    /// Alignment by optimal transport, Melnyk et al. 2024, over paired rewards.
    Aot,
    /// The same over the rewards of either side.
    AotUnpaired,
    /// `kto` with its reference point at 0: anchored preference optimisation of single responses.
    ApoZeroUnpaired,
    /// Anchored preference optimisation, D'Oosterlinck et al. 2024, for chosen responses that beat the policy's own.
    ApoZero,
    /// The same for chosen responses that do not.
    ApoDown,
    /// Lu et al. 2024: the loss that a language model found.
    Discopop,
}

impl DpoLossKind {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Sigmoid,
        Self::Cdpo,
        Self::Robust,
        Self::Hinge,
        Self::IpoMean,
        Self::IpoSum,
        Self::SigmoidNorm,
        Self::Simpo,
        Self::Orpo,
        Self::Kto,
        Self::ExoPair,
        Self::NcaPair,
        Self::BcoPair,
        Self::SppoHard,
        Self::Aot,
        Self::AotUnpaired,
        Self::ApoZeroUnpaired,
        Self::ApoZero,
        Self::ApoDown,
        Self::Discopop,
    ];

    /// As in the config.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sigmoid => "sigmoid",
            Self::Cdpo => "cdpo",
            Self::Robust => "robust",
            Self::Hinge => "hinge",
            Self::IpoMean => "ipo_mean",
            Self::IpoSum => "ipo_sum",
            Self::SigmoidNorm => "sigmoid_norm",
            Self::Simpo => "simpo",
            Self::Orpo => "orpo",
            Self::Kto => "kto",
            Self::ExoPair => "exo_pair",
            Self::NcaPair => "nca_pair",
            Self::BcoPair => "bco_pair",
            Self::SppoHard => "sppo_hard",
            Self::Aot => "aot",
            Self::AotUnpaired => "aot_unpaired",
            Self::ApoZeroUnpaired => "apo_zero_unpaired",
            Self::ApoZero => "apo_zero",
            Self::ApoDown => "apo_down",
            Self::Discopop => "discopop",
        }
    }

    /// Whether it sorts the pairs of a batch against each other.
    pub fn sorts_batch(self) -> bool {
        matches!(self, Self::Aot | Self::AotUnpaired)
    }

    /// Whether it looks at each response by itself, and so can learn from responses without a partner.
    pub fn takes_responses(self) -> bool {
        matches!(self, Self::Kto | Self::ApoZeroUnpaired)
    }

    /// Whether it reads this key of `[dpo]`, of those that are not for all losses.
    pub(super) fn reads(self, key: &str) -> bool {
        match self {
            Self::Cdpo | Self::Robust | Self::ExoPair | Self::Aot | Self::AotUnpaired => {
                key == "label_smoothing"
            }
            Self::Simpo => key == "simpo_gamma",
            Self::Kto | Self::ApoZeroUnpaired => key == "desirable_weight" || key == "undesirable_weight",
            Self::Discopop => key == "discopop_tau",
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_file() {
        for kind in DpoLossKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }
}
