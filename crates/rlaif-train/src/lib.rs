//! rlaif-train
