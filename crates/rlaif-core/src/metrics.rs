//! Metric names and rows (placeholder until helper C fills it).
