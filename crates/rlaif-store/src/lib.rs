//! rlaif-store
