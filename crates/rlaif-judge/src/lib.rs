//! rlaif-judge
